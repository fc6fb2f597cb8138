"""The consistency boundary: no annotation hides a stream from the conflict check."""

# Annotations are evaluated here, so that classes may be defined inside tests.

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, ClassVar, Generic, NamedTuple, NewType, Optional, TypedDict, TypeVar

import msgspec
import pytest

from eventcore import Command, Event, RecordedEvent, StreamId, StreamState, Telemetry, open_store
from eventcore.commands.fields import VERSION
from eventcore.commands.plan import CommandPlan
from eventcore.errors import InvalidCommand
from tests.store.backends import SteeredBackend
from tests.store.bank import Deposited, account

A, B = account("a"), account("b")

AccountId = NewType("AccountId", StreamId)
SavingsId = NewType("SavingsId", AccountId)
AnyAccount = TypeVar("AnyAccount", bound=StreamId)
AnyOfTwo = TypeVar("AnyOfTwo", AccountId, StreamId)
Free = TypeVar("Free")


class Account(StreamState):
    balance: int = 0

    def apply(self, event: RecordedEvent) -> None:
        if isinstance(event.data, Deposited):
            self.balance += event.data.amount


class Other(StreamState):
    def apply(self, event: RecordedEvent) -> None:
        pass


class Struct(msgspec.Struct, frozen=True):
    stream: StreamId


class Deep(msgspec.Struct, frozen=True):
    inner: Struct


@dataclasses.dataclass(frozen=True)
class Data:
    stream: Optional[StreamId] = None  # noqa: UP045  # both spellings occur


class Named(NamedTuple):
    stream: AccountId


class Typed(TypedDict):
    stream: list[StreamId]


class Plain:
    stream: StreamId


@dataclasses.dataclass
class Generous(Generic[Free]):
    value: Free


@dataclasses.dataclass
class Tree:
    children: "list[Tree]"
    stream: StreamId


def command_with(hint: Any) -> Any:
    """A command class with one field ``it`` of this type, and a stream of its own."""

    def handle(self: Any, state: None) -> list[tuple[StreamId, Event]]:
        return [(self.own, Deposited(amount=1))]

    namespace = {"__annotations__": {"own": StreamId, "it": hint}, "__module__": __name__, "handle": handle}
    make: Any = type(Command)
    return make("Guarded", (Command,), namespace)


SEEN: list[tuple[Any, Any]] = [
    (StreamId, B),
    (StreamId | None, B),
    (AccountId, B),
    (SavingsId, B),
    (AccountId | None, B),
    (Optional[SavingsId], B),  # noqa: UP045
    (AccountId | SavingsId, B),
    (tuple[AccountId, ...], (B,)),
    (list[AccountId], [B]),
    (frozenset[SavingsId] | None, frozenset({B})),
    (Sequence[AccountId] | StreamId, B),
    (NewType("Accounts", tuple[StreamId, ...]), (B,)),
    (AnyAccount, B),
    (AnyOfTwo, B),
    (list[AnyAccount], [B]),  # type: ignore[valid-type]  # of a generic command
    (Annotated[StreamId, "a note"], B),
    (Annotated[AccountId, "a note"] | None, B),
    (Annotated[tuple[StreamId, ...], "a note"], (B,)),
    (tuple[Annotated[AccountId, "a note"], ...], (B,)),
    (NewType("Noted", Annotated[StreamId, "a note"]), B),
]


@pytest.mark.parametrize(("hint", "value"), SEEN, ids=lambda value: str(value)[:50])
async def test_a_stream_is_part_of_the_boundary_in_whatever_alias_union_or_collection(
    hint: Any, value: Any, telemetry: Telemetry
) -> None:
    """A guard that only reads: another writer changes its stream, and the command is decided again."""
    backend = SteeredBackend()

    def overtake_once(_: Any) -> None:
        backend.before_append = lambda requests: None
        backend.overtake(B, 1, 7)

    async with backend.store(telemetry) as store:
        backend.before_append = overtake_once
        result = await store.execute(command_with(hint)(own=A, it=value))
    assert result.attempts == 2


REFUSED: list[tuple[Any, str]] = [
    (dict[StreamId, int], "streams inside it"),
    (Mapping[str, AccountId], "streams inside it"),
    (StreamId | int, "streams inside it"),
    (list[list[StreamId]], "streams inside it"),
    (Callable[[StreamId], None], "streams inside it"),
    (Struct, "the stream in Struct.stream"),
    (Deep, "the stream in Deep.inner"),
    (Data, "the stream in Data.stream"),
    (list[Data], "the stream in Data.stream"),
    (Named, "the stream in Named.stream"),
    (Typed, "the stream in Typed.stream"),
    (Plain, "the stream in Plain.stream"),
    (Tree, "the stream in Tree.stream"),
    (Annotated[Struct, "a note"], "the stream in Struct.stream"),
    (NewType("Wrapped", Struct), "the stream in Struct.stream"),
    (TypeVar("Wrapping", bound=Struct), "the stream in Struct.stream"),
    (Generous[StreamId], "streams inside it"),
    (Generous[Struct], "the stream in Struct.stream"),
]


@pytest.mark.parametrize(("hint", "hidden"), REFUSED, ids=lambda value: str(value)[:50])
def test_a_class_that_hides_a_stream_is_refused_when_it_is_defined(hint: Any, hidden: str) -> None:
    with pytest.raises(InvalidCommand, match=rf"Guarded\.it is typed .*{hidden} would escape the conflict check; expected"):
        command_with(hint)


@pytest.mark.parametrize("hint", [int, str, dict[str, int], Callable[[int], str], list[dict[str, tuple[int, ...]]]])
def test_fields_without_streams_are_no_part_of_the_boundary(hint: Any) -> None:
    assert dict(CommandPlan(command_with(hint)).streams(command_with(hint)(own=A, it=None))) == {A: VERSION}


def test_a_forward_reference_is_judged_when_the_class_is_first_used() -> None:
    guarded = command_with("dict[LaterId, int]")
    with pytest.raises(InvalidCommand, match=r"its annotations cannot be resolved .*LaterId.*define or import the names"):
        CommandPlan(guarded)
    globals()["LaterId"] = AccountId
    try:
        with pytest.raises(InvalidCommand, match=r"Guarded\.it is typed .*streams inside it would escape"):
            CommandPlan(guarded)
    finally:
        del globals()["LaterId"]


@pytest.mark.parametrize("hint", [Any, object, Free, list[Any], Any | None, dict[str, Any]])
async def test_a_stream_in_a_field_whose_type_does_not_name_it_is_refused(hint: Any) -> None:
    guarded = command_with(hint)
    async with open_store("memory:", exporters=[]) as store:
        for value in (B, [B], {"key": B}, {B: 1}):
            with pytest.raises(InvalidCommand, match=r"Guarded\.it holds .*would escape the conflict check; type the field"):
                await store.execute(guarded(own=A, it=value))
        await store.execute(guarded(own=A, it=["b", 1, None]))


def test_a_constant_of_the_class_is_no_field() -> None:
    class Fixed(Command[None]):
        own: StreamId
        other: ClassVar[dict[StreamId, int]] = {}

        def handle(self, state: None) -> None:
            return None

    assert list(CommandPlan(Fixed).streams(Fixed(own=A))) == [A]


# Classes of states


STATES: list[tuple[Any, Any]] = [
    (Annotated[StreamId, Account], B),
    (Annotated[StreamId, "a note", Account], B),
    (Annotated[StreamId, Account] | None, B),
    (Annotated[StreamId | None, Account], B),
    (Annotated[AccountId, Account], B),
    (tuple[Annotated[StreamId, Account], ...], (B,)),
    (Annotated[list[AccountId] | None, Account], [B]),
    (NewType("Kept", Annotated[StreamId, Account]), B),
]


@pytest.mark.parametrize(("hint", "value"), STATES, ids=lambda value: str(value)[:60])
def test_an_annotated_stream_has_the_class_of_its_state(hint: Any, value: Any) -> None:
    guarded = command_with(hint)
    assert dict(CommandPlan(guarded).streams(guarded(own=A, it=value))) == {A: VERSION, B: Account}


@pytest.mark.parametrize(
    "hint",
    [
        Annotated[StreamId, Account] | Annotated[StreamId, Other],
        tuple[Annotated[StreamId, Account], Annotated[StreamId, Other]],
        tuple[Annotated[StreamId, Account], StreamId],
    ],
)
def test_two_classes_of_states_in_one_field_are_refused(hint: Any) -> None:
    with pytest.raises(InvalidCommand, match=r"Guarded\.it is typed .*, with Account and .*; use a field for each"):
        command_with(hint)


def test_a_stream_that_is_named_with_and_without_a_state_has_it() -> None:
    guarded = command_with(Annotated[StreamId, Account])
    assert dict(CommandPlan(guarded).streams(guarded(own=A, it=A))) == {A: Account}


def test_one_stream_with_two_classes_in_one_command_is_refused() -> None:
    class Both(Command[Mapping[StreamId, Any]]):
        one: Annotated[StreamId, Account]
        two: Annotated[StreamId, Other]

        def handle(self, state: Mapping[StreamId, Any]) -> None:
            return None

    assert dict(CommandPlan(Both).streams(Both(one=A, two=B))) == {A: Account, B: Other}
    with pytest.raises(InvalidCommand, match=r"Both asks for the stream StreamId\('account-a'\) as Account and as Other"):
        CommandPlan(Both).streams(Both(one=A, two=A))


def test_a_fold_of_the_command_beside_annotated_fields_is_refused() -> None:
    class Folding(Command[Any]):
        own: Annotated[StreamId, Account]

        def initial_state(self) -> int:
            return 0

        def apply(self, state: int, event: RecordedEvent) -> int:
            return state

        def handle(self, state: Any) -> None:
            return None

    with pytest.raises(InvalidCommand, match=r"Folding defines initial_state and apply beside Folding\.own.*remove both"):
        CommandPlan(Folding)


def test_a_state_without_a_beginning_is_refused() -> None:
    with pytest.raises(InvalidCommand, match=r"Unborn\.balance has no default, so there is no state before the first event"):

        class Unborn(StreamState):
            balance: int


@pytest.mark.parametrize("keywords", [{"version": 0}, {"version": "2"}, {"snapshot_every": 0}, {"snapshot_every": 1.5}])
def test_keywords_of_a_state_out_of_their_range_are_refused(keywords: dict[str, Any]) -> None:
    make: Any = type(StreamState)
    with pytest.raises(InvalidCommand, match=f"Wrong: {next(iter(keywords))}="):
        make("Wrong", (StreamState,), {"__module__": __name__}, **keywords)
