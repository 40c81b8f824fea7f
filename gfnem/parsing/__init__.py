"""Trees over sentences: grammars, latent spaces, policies, exact inference, corpora, scores."""

from gfnem.parsing.data import TextData
from gfnem.parsing.forest import ForestSpace
from gfnem.parsing.forest_policy import ForestPolicy
from gfnem.parsing.grammar import Grammar
from gfnem.parsing.neural_pcfg import NeuralPCFG
from gfnem.parsing.parent_grammar import NeuralParentPCFG, ParentGrammar
from gfnem.parsing.rnng import RNNG
from gfnem.parsing.sentences import Sentences
from gfnem.parsing.shape_energy import ShapeEnergy
from gfnem.parsing.shaped_grammar import ShapedGrammar
from gfnem.parsing.shift_reduce import ShiftReduceSpace
from gfnem.parsing.shift_reduce_policy import ShiftReducePolicy
from gfnem.parsing.tabular_parent_grammar import TabularParentGrammar
from gfnem.parsing.tabular_pcfg import TabularPCFG
from gfnem.parsing.topdown import TopDownSpace
from gfnem.parsing.topdown_policy import TopDownPolicy
from gfnem.parsing.treebank_shapes import TreebankShapes
from gfnem.parsing.trees import Trees

__all__ = [
    "RNNG",
    "ForestPolicy",
    "ForestSpace",
    "Grammar",
    "NeuralPCFG",
    "NeuralParentPCFG",
    "ParentGrammar",
    "Sentences",
    "ShapeEnergy",
    "ShapedGrammar",
    "ShiftReducePolicy",
    "ShiftReduceSpace",
    "TabularPCFG",
    "TabularParentGrammar",
    "TextData",
    "TopDownPolicy",
    "TopDownSpace",
    "TreebankShapes",
    "Trees",
]
