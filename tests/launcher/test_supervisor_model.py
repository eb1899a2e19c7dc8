"""The supervisor under every kind of death, at any time and in any order: see `nursery`."""

from __future__ import annotations

import random

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule

from launcher.supervisor import NEVER, next_due_s
from tests.launcher.nursery import STATUSES, Nursery, any_system

WHO = st.integers(0, 4)
LUCK = st.sampled_from([0.0, 0.5, 1.0])
SECONDS = (0.0, 0.05, 0.5, 2.0, 9.0, 61.0)


class SupervisorMachine(RuleBasedStateMachine):
    @initialize(dice=st.randoms(use_true_random=False), boot=st.booleans())
    def begin(self, dice: random.Random, boot: bool) -> None:
        self.nursery: Nursery = any_system(dice)
        if boot:
            self.nursery.start()

    def name(self, who: int) -> str:
        return self.nursery.order[who % len(self.nursery.order)]

    @rule(who=WHO, running=st.booleans())
    def a_person_wants(self, who: int, running: bool) -> None:
        self.nursery.want(self.name(who), running)

    @rule(who=WHO, status=st.sampled_from(STATUSES))
    def one_dies_unnoticed(self, who: int, status: int) -> None:
        self.nursery.die(self.name(who), status)

    @rule(who=WHO, status=st.sampled_from(STATUSES), luck=LUCK)
    def one_dies(self, who: int, status: int, luck: float) -> None:
        self.nursery.lose(self.name(who), status, luck)

    @rule(who=WHO, luck=LUCK)
    def a_death_is_noticed(self, who: int, luck: float) -> None:
        self.nursery.notice(self.name(who), luck)

    @rule(luck=LUCK)
    def those_asked_leave(self, luck: float) -> None:
        for name, account in self.nursery.accounts.items():
            if account.leaving:
                self.nursery.lose(name, 0, luck)

    @rule(who=WHO)
    def one_is_ready(self, who: int) -> None:
        self.nursery.ready(self.name(who))

    @rule()
    def all_are_ready(self) -> None:
        for name in self.nursery.order:
            self.nursery.ready(name)

    @rule(who=WHO)
    def a_standby_dies(self, who: int) -> None:
        self.nursery.spare_dies(self.name(who))

    @rule(seconds=st.sampled_from(SECONDS))
    def time_passes(self, seconds: float) -> None:
        self.nursery.wait(seconds)

    @rule()
    def the_next_tick_comes(self) -> None:
        self.nursery.wait_due()

    @rule(who=st.sets(WHO, max_size=2))
    def somebody_looks(self, who: set[int]) -> None:
        self.nursery.look({self.name(one) for one in who})

    @rule(seldom=st.integers(0, 9))
    def the_system_goes_down(self, seldom: int) -> None:
        if not seldom:
            self.nursery.go_down()

    def teardown(self) -> None:
        if hasattr(self, "nursery"):
            self.nursery.run_out()
            assert next_due_s(self.nursery.state) == NEVER


TestSupervisor = SupervisorMachine.TestCase
TestSupervisor.settings = settings(max_examples=200, stateful_step_count=40, deadline=None)

# How often what happens in a busy system: Hypothesis looks for the short and odd instead.
HABITS = {
    "want": 3, "die": 6, "lose": 6, "notice": 12, "leave": 12, "ready": 20, "spare": 1,
    "wait": 6, "due": 10, "look": 4,
}  # fmt: skip
HISTORIES, STEPS = 100, 80


def step(nursery: Nursery, dice: random.Random, what: str) -> None:
    name, luck = dice.choice(nursery.order), dice.random()
    match what:
        case "want":
            nursery.want(name, dice.random() < 0.7)
        case "die":
            nursery.die(name, dice.choice(STATUSES))
        case "lose":
            nursery.lose(name, dice.choice(STATUSES), luck)
        case "notice":
            nursery.notice(name, luck)
        case "leave" if nursery.accounts[name].leaving:
            nursery.lose(name, dice.choice(STATUSES), luck)
        case "ready":
            nursery.ready(name)
        case "spare":
            nursery.spare_dies(name)
        case "wait":
            nursery.wait(dice.choice(SECONDS))
        case "due":
            nursery.wait_due()
        case "look":
            nursery.look([name] if dice.random() < 0.2 else [])


@pytest.mark.parametrize("seed", range(12))
def test_long_histories(seed: int) -> None:
    for number in range(HISTORIES):
        dice = random.Random(1000 * seed + number)
        nursery = any_system(dice)
        nursery.start(*nursery.order[dice.choice([0, 0, 0, 2]) :])
        for what in dice.choices([*HABITS], [*HABITS.values()], k=STEPS):
            step(nursery, dice, what)
        nursery.run_out()
