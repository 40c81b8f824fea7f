"""Trees over sentences: grammars, latent spaces, policies, exact inference, corpora, scores."""

from typing import Any

from gfnem.lazy import public_names

# a run is opened with the classes that it names, and no others
_attribute, __dir__, __all__ = public_names(
    "gfnem.parsing",
    {
        "ensemble": ("Ensemble",),
        "text.data": ("TextData",),
        "spaces.forest": ("ForestSpace",),
        "policies.forest": ("ForestPolicy",),
        "grammars.compound_pcfg": ("CompoundPCFG",),
        "grammars.energy_grammar": ("EnergyGrammar",),
        "grammars.sentence_chains": ("SentenceChains",),
        "grammars.grammar": ("Grammar",),
        "grammars.neural_pcfg": ("NeuralParentPCFG", "NeuralPCFG"),
        "grammars.rnng": ("RNNG",),
        "grammars.rule_prior": ("RulePrior",),
        "text.sentences": ("Sentences",),
        "bracket_prior.energy": ("BracketEnergy",),
        "bracket_prior.reward": ("BracketPrior",),
        "rewards.substrings": ("Substrings",),
        "rewards.whole": ("Agreement", "Coverage"),
        "rewards.trees": ("SpanReward", "TreeReward"),
        "grammars.simple_pcfg": ("SimplePCFG",),
        "grammars.splitting": ("copied_symbols", "split_symbols"),
        "spaces.shift_reduce": ("ShiftReduceSpace",),
        "policies.shift_reduce": ("ShiftReducePolicy",),
        "grammars.tabular": ("TabularGrammar",),
        "spaces.topdown": ("TopDownSpace",),
        "policies.recursion_policy": ("RecursionPolicy",),
        "policies.topdown": ("TopDownPolicy",),
        "bracket_prior.treebank_brackets": ("TreebankBrackets",),
        "trees.trees": ("Trees",),
    },
)


def __getattr__(name: str) -> Any:
    return _attribute(name)
