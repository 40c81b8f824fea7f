"""Settings that earlier releases had, and what each is now."""

from __future__ import annotations

import re

#: the longest name that a setting starts with counts; what follows it stays
RENAMED = {
    "e_step": "recipe",
    "objective": "recipe.objective",
    "timing": "schedule",
    "shapes": "brackets",
    "em": "recipe",
    "em.e_step": "recipe",
    "em.objective": "recipe.objective",
    "em.timing": "schedule",
    "em.side": "recipe.side",
    "em.policy_lr": "rates.policy",
    "em.model_lr": "rates.model",
    "em.log_z_lr": "rates.log_z",
    "em.model_betas": "rates.model_betas",
    "em.clip": "rates.clip",
    "em.eval_samples": "eval_samples",
    "em.max_updates": "max_updates",
    "em.max_m_updates": "max_m_updates",
}


def renamed(message: str) -> str:
    """The new names of the settings in an error message, in words; "" if there are none."""
    found = {}
    for dashes, old in re.findall(r"(--|^unknown setting )([\w.-]+)", message):
        parts = old.replace("-", "_").split(".")
        for length in range(len(parts), 0, -1):
            if new := RENAMED.get(".".join(parts[:length])):
                name = ".".join([new, *parts[length:]])
                flag = dashes.startswith("-")
                # a flag of one word has dashes, a setting of a part has underscores
                name = f"--{name if '.' in name else name.replace('_', '-')}" if flag else name
                found[f"--{old}" if flag else old] = name
                break
    return ", ".join(f"{old} is {new} now" for old, new in found.items())
