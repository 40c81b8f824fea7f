import traceback

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from toy_training import make as make_bits

from gfnem.batch import Batch
from gfnem.component import build
from gfnem.em import EM
from gfnem.fixed_shapes import shapes_fixed
from gfnem.objectives import SubTrajectoryBalance, TrajectoryBalance
from gfnem.parsing import NeuralPCFG, RecursionPolicy, Substrings, TopDownPolicy
from gfnem.parsing.spaces.topdown import TopDownSpace
from gfnem.parsing.text.sentences import Sentences
from gfnem.policy import Policy
from gfnem.rates import Descent
from gfnem.recipes import exact, gflownet, mcmc, posterior
from gfnem.recording import Gradients
from gfnem.schedules import AdaptiveThreshold, Alternating, Anneal, EveryUpdate, moving, value_at

#: what a GPU is waited for, since sizes or ways depend on what it finds
WAITS = {
    *("_local_scalar_dense", "nonzero", "_unique2", "unique_dim", "unique_consecutive"),
    *("masked_select", "is_nonzero", "equal", "bincount"),
}
# an update that is not recorded takes no random numbers for what has come to its end
ANNEALED = {"temperature": Anneal(1.5, 1.0, 100), "epsilon": Anneal(0.5, 0.0, 100)}
RECIPES = {
    "importance": lambda: gflownet(samples=4),
    "annealed": lambda: gflownet(samples=4, m_step="equal", **ANNEALED),
    "labels kept": lambda: gflownet(samples=4, collapse=False),
    "trajectory balance": lambda: gflownet(TrajectoryBalance(centred=True), samples=4),
    "flows": lambda: gflownet(SubTrajectoryBalance(), samples=4),
    "best": lambda: gflownet(samples=4, m_step="best"),
    "posterior": lambda: posterior(samples=4, reward_temperature=Anneal(2.0, 1.0, 10)),
    "exact": exact,
}
on_a_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")


def sentences(lengths=(1, 2, 3, 4, 7, 9, 5, 2), seed=0):
    generator = torch.Generator().manual_seed(seed)
    lengths = torch.tensor(lengths)
    shape = len(lengths), int(lengths.max())
    tokens = torch.randint(1, 40, shape, generator=generator)
    return Sentences(tokens * (torch.arange(shape[1]) < lengths[:, None]), lengths)


def grammar(recipe, policy=TopDownPolicy, schedule=None, reward=None, record=True, **settings):
    torch.manual_seed(0)
    model = NeuralPCFG(40, 5, 7, dim=16, **settings)
    facts = {"vocab_size": 40, "dim": 16} if policy is TopDownPolicy else {}
    made = policy(nonterminals=5, contexts=model.contexts, **facts)
    return EM(model, TopDownSpace(5), made, recipe, schedule, reward, record)


class Watch(TorchDispatchMode):
    """Notes the operations that a GPU would be waited for in."""

    def __init__(self):
        super().__init__()
        self.found = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        name = function.__name__.split(".")[0]
        chosen = name in ("index", "index_put", "index_put_") and any(
            part is not None and part.dtype in (torch.bool, torch.uint8) for part in args[1]
        )
        if name in WAITS or chosen or function.__name__ == "repeat_interleave.Tensor":
            frames = [f for f in traceback.extract_stack() if "/gfnem/" in f.filename]
            self.found.append(f"{name} in {frames[-1].filename}:{frames[-1].lineno}")
        return function(*args, **(kwargs or {}))


def watched(em, x):
    """What an update, without steps, would wait for."""
    device = x.tokens.device
    with shapes_fixed(), moving(lambda anneal: torch.ones((), device=device)), Watch() as watch:
        em.recorder.rehearse(x, em.due())
    return watch.found


@pytest.mark.parametrize("reward", [False, True])
@pytest.mark.parametrize("policy", [TopDownPolicy, RecursionPolicy])
@pytest.mark.parametrize("name", RECIPES)
def test_an_update_that_can_be_recorded_waits_for_nothing(name, policy, reward):
    em = grammar(RECIPES[name](), policy, reward=Substrings() if reward else None)
    assert em.recorder.refused is None
    assert watched(em, sentences()) == []


def test_what_waits_would_be_seen():
    em, x = grammar(gflownet(samples=4)), sentences()
    with shapes_fixed(False), Watch() as watch:
        Batch(em, x).draw(em.phases[0].source)
    assert watch.found


@pytest.mark.parametrize(
    ("em", "named"),
    [
        (lambda: grammar(gflownet(), parent_classes=5), "NeuralPCFG"),
        (lambda: grammar(mcmc(samples=2, steps=2)), "Chains"),
        (lambda: grammar(gflownet(), schedule=AdaptiveThreshold(1.0)), "AdaptiveThreshold"),
        (lambda: grammar(gflownet(), reward=Substrings(Anneal(1.0, 2.0, 5))), "Substrings"),
        (lambda: make_bits().em, "BitModel"),
    ],
)
def test_parts_that_do_not_say_so_are_not_recorded(em, named):
    recorder = em().recorder
    assert named in recorder.refused
    assert recorder.recording(sentences(), [0, 1]) is None


def test_nothing_is_recorded_on_a_cpu():
    em, x = grammar(gflownet(samples=4)), sentences()
    assert [em.recorder.recording(x, [0, 1]) for _ in range(3)] == [None] * 3
    assert grammar(gflownet(samples=4), record=False).recorder is None


def test_moving_numbers_are_asked_for_elsewhere_meanwhile():
    anneal = Anneal(2.0, 1.0, 10)
    with moving(lambda asked: (asked, "moves")):
        assert value_at(anneal, 5) == (anneal, "moves")
        assert value_at(3, 5) == 3.0
    assert value_at(anneal, 5) == 1.5


def test_gradients_are_kept_where_a_loss_depends_on_parameters():
    network = torch.nn.Linear(3, 2)
    kept = Gradients(network)
    loss = network(torch.ones(3)).sum()
    network.bias.requires_grad_(True)
    assert kept.keep(loss) == [0, 1]
    assert torch.equal(kept.kept[0], torch.ones(2, 3))
    assert kept.keep(network.weight.sum()) == [0]
    assert kept.keep(torch.ones(())) == []


# ------------------------------------------------------------------------ on a GPU


def updates(em, batches, count):
    """Figures of some updates, from the same random numbers."""
    descent = Descent(em)
    torch.manual_seed(3)
    return [
        {name: float(value) for name, value in descent.update(batches[at % len(batches)]).items()}
        for at in range(count)
    ]


@on_a_gpu
@pytest.mark.parametrize("schedule", [None, EveryUpdate(m_every=2), Alternating(3, 2)])
@pytest.mark.parametrize("policy", [TopDownPolicy, RecursionPolicy])
@pytest.mark.parametrize("name", RECIPES)
def test_a_recorded_update_is_an_update(name, policy, schedule):
    batches = [sentences(seed=seed).to("cuda") for seed in range(3)]
    batches.append(sentences((3, 4, 5)).to("cuda"))
    found = []
    for record in (False, True):
        em = grammar(RECIPES[name](), policy, schedule, record=record).to("cuda")
        found.append(updates(em, batches, 16))
    assert em.recorder.refused is None
    assert any(kept is not None for kept in em.recorder._kept.values())
    for one, other in zip(*found, strict=True):
        assert one.keys() == other.keys()
        for key in one:
            assert one[key] == pytest.approx(other[key], rel=2e-3, abs=2e-3)


@on_a_gpu
def test_a_part_that_waits_is_found_out_before_it_is_recorded():
    em = grammar(gflownet(samples=4)).to("cuda")
    loss = em.phases[0].objective.forward
    em.phases[0].objective.forward = lambda *given: loss(*given) * float(given[1].mean() > -1e9)
    figures = updates(em, [sentences().to("cuda")], 5)
    assert "synchronizing" in em.recorder.refused
    assert all(torch.tensor(figure["e_loss"]).isfinite() for figure in figures)


@on_a_gpu
@pytest.mark.parametrize("precision", [torch.bfloat16, torch.float16])
def test_mixed_precision(precision):
    em, x = grammar(gflownet(samples=4)).to("cuda"), sentences().to("cuda")
    with torch.autocast("cuda", precision):
        figures = updates(em, [x], 30)
    recorded = any(kept is not None for kept in em.recorder._kept.values())
    assert recorded == (precision == torch.bfloat16)  # half precision scales its losses
    assert figures[-1]["e_loss"] < figures[0]["e_loss"]


def test_build_knows_of_recording():
    spec = {"class_path": "gfnem.parsing.RecursionPolicy"}
    assert build(spec, Policy, nonterminals=5, contexts=1).recordable
