"""The proof of a latent space, and of a policy on it, against exhaustive search."""

# what is None here has failed the test: the parts of a trajectory are not asked for one by one
# pyright: reportOptionalMemberAccess=false, reportOptionalSubscript=false, reportArgumentType=false

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Hashable
from functools import partial
from typing import Any
from unittest import SkipTest

import torch
from torch import Tensor

from gfnem.batched import Batched, each, pick, tensors_of, what_no_state_is
from gfnem.enumeration import Enumeration, enumerate_trajectories, keys_of
from gfnem.policy import Policy
from gfnem.sampling import Exploration, log_probability
from gfnem.space import LatentSpace, Trajectories
from gfnem.testing.common import DevicesNamed, Rows, close, devices, moved, rebuild


class LatentSpaceTestCase(Rows):
    """Proves a latent space, and a policy on it, against exhaustive search.

    Supply `make_space` and `make_x`; `count_objects`, `count_trajectories` and `make_policy` where
    you can.
    """

    #: trajectories drawn where frequencies are compared with probabilities
    frequency_samples: int = 4000
    #: largest difference, in nats, between two computations of one log probability
    tolerance: float = 1e-4

    def make_space(self) -> LatentSpace:
        """The space."""
        raise NotImplementedError

    def make_x(self) -> Any:
        """A batch of observations of different sizes, all of whose structures can be listed."""
        raise NotImplementedError

    def count_objects(self, row: int) -> int | None:
        """How many structures observation `row` has, by your own reckoning."""
        return None

    def count_trajectories(self, row: int) -> int | None:
        """How many trajectories observation `row` has, by your own reckoning."""
        return None

    def make_policy(self) -> Policy | None:
        """A policy with random parameters."""
        return None

    def same_state(self, one: Any, other: Any) -> Tensor:
        """`(batch, samples)` bool: whether states are the same, by default in every tensor."""
        equal = [
            (a == b).flatten(2).all(2) if a.dim() > 2 else a == b
            for a, b in zip(tensors_of(one), tensors_of(other), strict=True)
        ]
        return torch.stack(equal).all(0)

    # ------------------------------------------------------------------ the space

    def _space(self) -> tuple[LatentSpace, Any, Enumeration]:
        torch.manual_seed(0)
        space, x = self.make_space(), self.make_x()
        wrong = what_no_state_is(space.initial_state(x, 2), len(x), 2)
        assert wrong is None, wrong
        return space, x, enumerate_trajectories(space, x)

    def test_masks_agree_with_initial_and_final(self):
        """Exactly the final states permit no action, exactly the initial ones no undoing."""
        space, x, found = self._space()
        assert space.is_initial(space.initial_state(x, 2)).all(), "initial_state is not initial"
        every = Batched.cat(found.trajectories.states)
        assert (space.forward_mask(every).any(-1) == ~space.is_final(every)).all()
        assert (space.backward_mask(every).any(-1) == ~space.is_initial(every)).all()

    def test_undoing_undoes_every_step(self):
        """`backward_action` leads back from every child, and `forward_action` forth again."""
        space, _, found = self._space()
        state = Batched.cat(found.trajectories.states)
        before = [tensor.clone() for tensor in tensors_of(state)]
        allowed = space.forward_mask(state)
        for index in range(allowed.shape[-1]):
            taken = allowed[..., index]
            action = torch.full(taken.shape, index, device=taken.device)
            child = space.step(state, action)
            undo = space.backward_action(state, action)
            permitted = space.backward_mask(child)
            self._in_range(undo, permitted, "backward_action")
            if not taken.any():
                continue
            permitted = permitted.gather(-1, undo[..., None])[..., 0]
            assert permitted[taken].all(), f"action {index} cannot be undone"
            back = space.unstep(child, undo)
            assert self.same_state(back, state)[taken].all(), f"action {index} is undone wrongly"
            assert (space.forward_action(child, undo) == action)[taken].all()
        for old, tensor in zip(before, tensors_of(state), strict=True):
            assert torch.equal(old, tensor), "step changed the state it was given"

    def test_redoing_redoes_every_undoing(self):
        """`forward_action` leads forth from every parent, and every parent is reachable."""
        space, x, found = self._space()
        state = Batched.cat(found.trajectories.states)
        shape = space.is_final(state).shape
        reachable = [set(row) for row in keys_of(state, shape)]
        before = [tensor.clone() for tensor in tensors_of(state)]
        allowed = space.backward_mask(state)
        start = space.initial_state(x, 1).map(lambda t: t.expand(-1, shape[1], *t.shape[2:]))
        initial = space.is_initial(state)
        assert self.same_state(state, start)[initial].all(), "there are two initial states"
        for index in range(allowed.shape[-1]):
            taken = allowed[..., index]
            undo = torch.full(taken.shape, index, device=taken.device)
            parent = space.unstep(state, undo)
            action = space.forward_action(state, undo)
            permitted = space.forward_mask(parent)
            self._in_range(action, permitted, "forward_action")
            if not taken.any():
                continue
            permitted = permitted.gather(-1, action[..., None])[..., 0]
            assert permitted[taken].all(), f"undoing {index} cannot be redone"
            forth = space.step(parent, action)
            assert self.same_state(forth, state)[taken].all(), f"undoing {index} is redone wrongly"
            assert (space.backward_action(parent, action) == undo)[taken].all()
            keys = keys_of(parent, shape)
            for row, sample in taken.nonzero().tolist():
                assert keys[row][sample] in reachable[row], "a parent cannot be reached forwards"
        for old, tensor in zip(before, tensors_of(state), strict=True):
            assert torch.equal(old, tensor), "unstep changed the state it was given"

    def _in_range(self, action: Tensor, mask: Tensor, name: str) -> None:
        # rows without a permitted action are ignored, but their index is still looked up
        assert ((action >= 0) & (action < mask.shape[-1])).all(), f"{name} is out of range"

    def test_final_states_and_latents_are_inverse(self):
        """`final_state` and `to_latent` undo each other."""
        space, x, found = self._space()
        latent, final = found.trajectories.latent, found.trajectories.states[-1]
        again = space.final_state(x, latent)
        assert space.is_final(again).all()
        assert self.same_state(again, final).all(), "final_state(to_latent(state)) is not state"
        shape = found.valid.shape
        assert keys_of(space.to_latent(x, again), shape) == keys_of(latent, shape)

    def test_counts(self):
        """Exhaustive search finds as many structures and trajectories as there should be."""
        space, x, found = self._space()
        keys = keys_of(found.trajectories.latent, found.valid.shape)
        assert tensors_of(found.trajectories.latent), "latents hold no tensors"
        for row, valid in enumerate(found.valid.tolist()):
            ways = Counter(key for key, ok in zip(keys[row], valid, strict=True) if ok)
            objects, trajectories = self.count_objects(row), self.count_trajectories(row)
            assert objects is None or len(ways) == objects, (
                f"row {row} has {len(ways)} structures, not {objects}"
            )
            assert trajectories is None or sum(valid) == trajectories, (
                f"row {row} has {sum(valid)} trajectories, not {trajectories}"
            )
            if space.unique_trajectory:
                assert max(ways.values()) == 1, (
                    "unique_trajectory, but a structure has several trajectories"
                )
            alone = enumerate_trajectories(space, self.take(x, row))
            assert int(alone.valid.sum()) == sum(valid), (
                "padding changes the number of trajectories"
            )

    def test_on_every_device(self):
        """Walking there and back works on the devices that are there, and would on another."""
        for device in devices():
            space, x = self.make_space(), moved(self.make_x(), device)
            with DevicesNamed():
                found = enumerate_trajectories(space, x)
                z, states = found.trajectories.latent, found.trajectories.states
                state = Batched.cat(states)
                for mask, step, back in (
                    (space.forward_mask(state), space.step, space.backward_action),
                    (space.backward_mask(state), space.unstep, space.forward_action),
                ):
                    action = mask.int().argmax(-1)
                    step(state, action)
                    back(state, action)
                first = torch.zeros_like(found.valid[:, :1], dtype=torch.long)
                each(partial(pick, index=first), z)  # as an M-step picks from draws
                if space.offers("moves"):
                    moves = space.moves()
                    moves.propose(x, moves.initial(x, 2))

    # ------------------------------------------------------------------ a policy on it

    def _policy(self) -> tuple[LatentSpace, Any, Enumeration, Policy, Any]:
        space, x, found = self._space()
        policy = self.make_policy()
        if policy is None:
            raise SkipTest("no make_policy")
        policy.eval()
        with torch.no_grad():
            return space, x, found, policy, policy.encode(x)

    @torch.no_grad()
    def _score(self, policy, context, space, trajectories) -> tuple[Tensor, Tensor]:
        scores = policy.score(context, space, trajectories)
        return scores.log_pf.sum(2), scores.log_pb.sum(2)

    def test_forward_probabilities_sum_to_one(self):
        """`P_F` sums to 1 over all trajectories of each `x`."""
        space, _, found, policy, context = self._policy()
        log_pf, _ = self._score(policy, context, space, found.trajectories)
        total = (log_pf.exp() * found.valid).sum(1)
        close(total, torch.ones_like(total), self.tolerance, "sum of P_F")

    def test_backward_probabilities_sum_to_one(self):
        """`P_B` sums to 1 over the trajectories into each structure."""
        space, _, found, policy, context = self._policy()
        _, log_pb = self._score(policy, context, space, found.trajectories)
        keys = keys_of(found.trajectories.latent, found.valid.shape)
        for row in range(len(keys)):
            total: dict[Hashable, float] = {}
            for sample in found.valid[row].nonzero()[:, 0].tolist():
                key = keys[row][sample]
                total[key] = total.get(key, 0.0) + float(log_pb[row, sample].exp())
            sums = torch.tensor(list(total.values()))
            close(sums, torch.ones_like(sums), self.tolerance, "sum of P_B")

    @torch.no_grad()
    def test_score_equals_step_by_step(self):
        """One-call scores, the policy's own and the generic ones, equal one state at a time."""
        space, _, found, policy, context = self._policy()
        paths = found.trajectories
        log_pf = log_pb = torch.zeros(found.valid.shape, device=found.valid.device)
        for t in range(paths.actions.shape[2]):
            try:
                before = policy(context, paths.states[t])
                after = policy(context, paths.states[t + 1])
            except NotImplementedError:
                raise SkipTest("the policy scores whole structures only") from None
            allowed = space.backward_mask(paths.states[t + 1])
            backward = allowed * 0.0 if after.backward is None else after.backward
            forward = log_probability(before.forward, space.forward_mask(paths.states[t]))
            forward = forward.gather(2, paths.actions[:, :, t, None])[..., 0]
            backward = log_probability(backward, allowed)
            backward = backward.gather(2, paths.backward_actions[:, :, t, None])[..., 0]
            ended = ~paths.mask[:, :, t]
            log_pf = log_pf + forward.masked_fill(ended, 0.0)
            log_pb = log_pb + backward.masked_fill(ended, 0.0)
        generic = Policy.score(policy, context, space, paths)
        for name, scores in (("generic", generic), ("own", policy.score(context, space, paths))):
            close(scores.log_pf.sum(2), log_pf, self.tolerance, f"{name} log_pf")
            close(scores.log_pb.sum(2), log_pb, self.tolerance, f"{name} log_pb")

    def test_padding_does_not_change_probabilities(self):
        """Trajectory probabilities in a padded batch are those of each `x` on its own."""
        space, x, found, policy, context = self._policy()
        together = self._score(policy, context, space, found.trajectories)
        for row in range(len(found.valid)):
            single = self.take(x, row)
            alone = enumerate_trajectories(space, single)
            with torch.no_grad():
                context = policy.encode(single)
            apart = self._score(policy, context, space, alone.trajectories)
            for name, joint, own in zip(("log_pf", "log_pb"), together, apart, strict=True):
                # trajectories may be numbered otherwise under other padding: compare them sorted
                joint, own = joint[row][found.valid[row]].sort().values, own[0].sort().values
                close(joint, own, self.tolerance, f"{name} of row {row} in a batch and alone")

    def _probabilities(self, space, found, policy, context) -> list[dict[Hashable, float]]:
        log_pf, _ = self._score(policy, context, space, found.trajectories)
        keys = keys_of(found.trajectories.latent, found.valid.shape)
        table: list[dict[Hashable, float]] = [{} for _ in keys]
        for row, sample in found.valid.nonzero().tolist():
            key = keys[row][sample]
            table[row][key] = table[row].get(key, 0.0) + float(log_pf[row, sample].exp())
        return table

    def test_sampled_frequencies(self):
        """Structures are drawn as often as their enumerated probabilities say."""
        space, x, found, policy, context = self._policy()
        table = self._probabilities(space, found, policy, context)
        count = self.frequency_samples
        drawn = policy.sample(context, x, space, count)
        keys = keys_of(drawn.latent, torch.Size((len(table), count)))
        for row, probabilities in enumerate(table):
            seen = Counter(keys[row])
            assert seen.keys() <= probabilities.keys(), "drew a structure that search did not find"
            for key, p in probabilities.items():
                error = abs(seen[key] / count - p)
                bound = 5 * math.sqrt(p * (1 - p) / count) + 5 / count
                assert error <= bound, f"drawn {seen[key]} of {count} times, probability {p:.4f}"
        if drawn.log_behaviour is not None:
            log_pf, _ = self._score(policy, context, space, drawn)
            close(drawn.log_behaviour, log_pf, self.tolerance, "log_behaviour on policy")

    def test_explored_samples_know_their_probability(self):
        """Weighting explored samples by `P_F / behaviour` gives back the policy's probabilities."""
        space, x, found, policy, context = self._policy()
        table = self._probabilities(space, found, policy, context)
        count = self.frequency_samples
        drawn = policy.sample(context, x, space, count, Exploration(1.5, 0.2))
        if drawn.log_behaviour is None:
            raise SkipTest("the policy does not report log_behaviour")
        log_pf, _ = self._score(policy, context, space, drawn)
        weight = (log_pf - drawn.log_behaviour).exp().double()
        keys = keys_of(drawn.latent, torch.Size((len(table), count)))
        for row, probabilities in enumerate(table):
            for key, p in probabilities.items():
                hit = torch.tensor([k == key for k in keys[row]], dtype=torch.double)
                terms = hit * weight[row]
                bound = 5 * float(terms.std()) / math.sqrt(count) + 5 / count
                error = abs(float(terms.mean()) - p)
                assert error <= bound, f"weighted frequency is off by {error:.4f} at {p:.4f}"

    def test_retraced_trajectories(self):
        """Backward trajectories end in the structure given, and are scored like forward ones."""
        space, x, found, policy, context = self._policy()
        paths = found.trajectories
        shape = found.valid.shape
        traced = policy.retrace(context, x, space, paths.latent)
        assert keys_of(traced.latent, shape) == keys_of(paths.latent, shape)
        log_pf, log_pb = self._score(policy, context, space, traced)
        if traced.log_behaviour is not None:
            close(traced.log_behaviour, log_pb, self.tolerance, "log_behaviour of retrace")
        if space.unique_trajectory:
            close(log_pb, torch.zeros_like(log_pb), self.tolerance, "log_pb of the only path")
        if traced.actions is None or paths.actions.shape[2] == 0:
            if space.unique_trajectory:
                known, _ = self._score(policy, context, space, paths)
                close(log_pf, known, self.tolerance, "log_pf of retraced trajectories")
            return
        assert space.is_initial(traced.states[0]).all(), "retrace stops before the initial state"
        listed = self._score(policy, context, space, paths)
        names = [_names(t) for t in (paths, traced)]
        for row in range(shape[0]):
            known = {
                name: (float(listed[0][row, sample]), float(listed[1][row, sample]))
                for sample, name in enumerate(names[0][row])
            }
            for sample, name in enumerate(names[1][row]):
                assert name in known, "retrace found a trajectory that search did not"
                own = (float(log_pf[row, sample]), float(log_pb[row, sample]))
                for a, b in zip(own, known[name], strict=True):
                    assert abs(a - b) <= self.tolerance, "retraced trajectories score otherwise"

    def test_specsrebuild(self):
        """Space and policy can be made again from plain data, as a checkpoint does."""
        torch.manual_seed(0)
        rebuild(self.make_space(), LatentSpace)
        policy = self.make_policy()
        if policy is not None:
            twin = rebuild(policy, Policy)
            twin.load_state_dict(policy.state_dict())


def _names(trajectories: Trajectories) -> list[list[tuple[int, ...]]]:
    """The actions really taken, `[row][sample]`."""
    actions, mask = trajectories.actions.tolist(), trajectories.mask.tolist()
    return [
        [
            tuple(a for a, taken in zip(path, kept, strict=True) if taken)
            for path, kept in zip(paths, masks, strict=True)
        ]
        for paths, masks in zip(actions, mask, strict=True)
    ]
