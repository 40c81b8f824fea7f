"""Trees over sentences: grammars, latent spaces, policies, exact inference, corpora, scores."""

from typing import Any

from gfnem.lazy import public_names

# a run is opened with the classes that it names, and no others
_attribute, __dir__, __all__ = public_names(
    "gfnem.parsing",
    {
        "data": ("TextData",),
        "forest": ("ForestSpace",),
        "forest_policy": ("ForestPolicy",),
        "grammar": ("Grammar",),
        "neural_pcfg": ("NeuralPCFG",),
        "parent_grammar": ("NeuralParentPCFG", "ParentGrammar"),
        "rnng": ("RNNG",),
        "sentences": ("Sentences",),
        "shape_energy": ("ShapeEnergy",),
        "shaped_grammar": ("ShapedGrammar",),
        "shift_reduce": ("ShiftReduceSpace",),
        "shift_reduce_policy": ("ShiftReducePolicy",),
        "tabular_parent_grammar": ("TabularParentGrammar",),
        "tabular_pcfg": ("TabularPCFG",),
        "topdown": ("TopDownSpace",),
        "topdown_policy": ("TopDownPolicy",),
        "treebank_shapes": ("TreebankShapes",),
        "trees": ("Trees",),
    },
)


def __getattr__(name: str) -> Any:
    return _attribute(name)
