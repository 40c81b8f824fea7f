"""What the first and the last word of a span say of its label, against all short derivations."""

import torch

from gfnem.parsing import NeuralPCFG, Sentences, SimplePCFG
from gfnem.parsing.grammars.rule_tables import rules_of
from gfnem.parsing.inference.corners import corners


def test_corners_are_what_sampled_derivations_begin_and_end_with():
    torch.manual_seed(0)
    for kind in (NeuralPCFG, SimplePCFG):
        model = kind(5, 2, 3, dim=16).requires_grad_(False)
        _, rules, words = model.tables()
        x = Sentences.from_lists([[0, 1, 2, 3, 4]])
        with torch.no_grad():
            found, rules = corners(model.potentials(x)), rules_of(rules).exp()
            pairs = torch.cat([rules.pairs(label) for label in range(2)])
            for side, table in enumerate((pairs.sum(2), pairs.sum(1))):
                # follow the corner from each label until hardly any is undecided
                mass, ends = torch.eye(2), torch.zeros(2, 5)
                for _ in range(200):
                    below = mass @ table
                    mass, ends = below[:, :2], ends + below[:, 2:] @ words.exp()
                expected = ends.log().log_softmax(0).T
                torch.testing.assert_close(found[side][0], expected, atol=5e-3, rtol=0)
