"""Volume against a dict, with remounts, full disks, device errors and power cuts in between."""

from __future__ import annotations

import random

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from servers.fs.integrity import PAYLOAD
from servers.fs.mount import BLOCK
from servers.fs.paths import parents
from servers.fs.volume import Volume
from tests.servers.disk import BadSector, Disk, PowerCut, garbled
from tests.servers.driver import behind
from tests.servers.model import Model, tree_of
from ukernel.abi.errors import Answer
from ukernel.abi.services import NoSpace

SECTORS = 1024  # 56 blocks, soon full, and an extent that ends early
names = st.sampled_from(["a", "b", "näme"])
paths = st.lists(names, min_size=1, max_size=3).map(lambda parts: "/" + "/".join(parts))
sizes = st.sampled_from([1, PAYLOAD, 1000, 1023, BLOCK, BLOCK + 1, 30_000, 120_000])
offsets = st.sampled_from([0, 1, 512, 1000, BLOCK - 1, BLOCK, 20_000])
faults = st.one_of(st.none(), st.none(), st.integers(1, 8))


class VolumeMachine(RuleBasedStateMachine):
    @initialize(seed=st.integers(0, 99))
    def begin(self, seed: int) -> None:
        self.seed = seed
        self.disk = Disk(SECTORS)
        self.model = Model()
        self.volume = self.mounted(True)

    @rule(path=paths, truncate=st.booleans(), fault=faults)
    def create(self, path: str, truncate: bool, fault: int | None) -> None:
        self.do("create", path, truncate, fault=fault)

    @rule(path=paths, offset=offsets, size=sizes, seed=st.integers(0, 9), fault=faults)
    def write(self, path: str, offset: int, size: int, seed: int, fault: int | None) -> None:
        self.do("write", path, offset, random.Random(seed).randbytes(size), fault=fault)

    @rule(path=paths, size=st.one_of(st.just(0), sizes), fault=faults)
    def truncate(self, path: str, size: int, fault: int | None) -> None:
        self.do("truncate", path, size, fault=fault)

    @rule(path=paths, fault=faults)
    def mkdir(self, path: str, fault: int | None) -> None:
        for end in [at for at, char in enumerate(path + "/") if char == "/" and at]:
            self.do("mkdir", path[:end], fault=fault)

    @rule(old=paths, new=paths, fault=faults)
    def rename(self, old: str, new: str, fault: int | None) -> None:
        self.do("rename", old, new, fault=fault)

    @rule(path=paths, fault=faults)
    def remove(self, path: str, fault: int | None) -> None:
        self.do("remove", path, fault=fault)

    @rule(path=paths, offset=offsets, size=sizes, fault=faults)
    def read(self, path: str, offset: int, size: int, fault: int | None) -> None:
        self.do("read", path, offset, size, fault=fault)

    @rule(path=st.one_of(st.just("/"), paths), fault=faults)
    def look(self, path: str, fault: int | None) -> None:
        self.do("stat", path, fault=fault)
        self.do("entries", path, 0, fault=fault)

    @rule(fault=faults)
    def mkdir_with_parents(self, fault: int | None) -> None:
        if self.model.tree.get("/a", b"") is None and "/a/b" not in self.model.tree:
            self.do("mkdir", "/a/b", fault=fault)

    @precondition(lambda self: self.model.tree)
    @rule()
    def remount(self) -> None:
        self.volume.sync()
        self.volume.unmount()
        self.volume = self.mounted()

    @rule(seed=st.integers(0, 99))
    def power_cut(self, seed: int) -> None:
        self.disk = self.disk.after_power_cut(seed)
        self.volume = self.mounted()

    @rule(seed=st.integers(0, 99))
    def misread(self, seed: int) -> None:
        """The next read of the disk, whenever it comes, is wrong in some places."""
        self.disk.lie(garbled(seed))

    @invariant()
    def same_tree(self) -> None:
        assert tree_of(self.volume) == self.model.tree

    def mounted(self, format_if_blank: bool = False) -> Volume:
        self.seed += 1
        return Volume.mount(behind(self.disk, self.seed), format_if_blank)

    def do(self, name: str, *arguments: object, fault: int | None) -> None:
        """The same operation on both; after a fault either outcome, but one of them entirely."""
        after = Model(self.model.tree)
        expected = outcome(after, name, arguments)
        if fault is not None:
            self.disk.fail_at(fault, BadSector, for_good=fault % 2 == 0)
        got = outcome(self.volume, name, arguments)
        self.disk.heal()
        if got is BadSector:
            assert fault is not None
            after.tree = self.one_of([self.model, after, *self.halfway(name, arguments)])
        elif got is NoSpace:
            assert expected is not None
            after = self.model
        else:
            assert got == expected
        self.model = after

    def halfway(self, name: str, arguments: tuple[object, ...]) -> list[Model]:
        """`mkdir` makes one directory after the other: each is there or not, entirely."""
        made: list[Model] = []
        for parent in parents(str(arguments[0])) if name == "mkdir" else []:
            step = Model(made[-1].tree if made else self.model.tree)
            if outcome(step, "mkdir", (parent,)) is not None:
                break
            made.append(step)
        return made

    def one_of(self, allowed: list[Model]) -> dict[str, bytes | None]:
        found = tree_of(self.volume)
        assert found in [model.tree for model in allowed]
        return found


def outcome(on: Volume | Model, name: str, arguments: tuple[object, ...]) -> object:
    """What the operation returns, or the class of what it raises."""
    try:
        return getattr(on, name)(*arguments)
    except (Answer, BadSector, PowerCut) as error:
        return type(error)


TestVolumeMachine = VolumeMachine.TestCase
TestVolumeMachine.settings = settings(
    max_examples=150,
    stateful_step_count=30,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)
