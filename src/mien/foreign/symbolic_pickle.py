"""What a pickle says, without doing it.

A pickle is a program: it names functions and has them called. Here its instructions are followed on paper. A name stays a name, a
call becomes a record of what would have been called with what, and a restored state is kept beside it. No instruction can
reach a function of this process, so there is no list of forbidden names to be incomplete.
"""

from __future__ import annotations

import pickletools
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, BinaryIO, NamedTuple, cast

INSTRUCTIONS = 1_000_000  # in one pickle; a network of a thousand tensors takes some 50,000


class Unreadable(ValueError):
    """The file does not say what it should, or says too much."""


class Name(NamedTuple):
    """What a pickle calls a class or a function by."""

    module: str
    name: str

    def __str__(self) -> str:
        return f"{self.module}.{self.name}"


class Reference(NamedTuple):
    """Data outside the pickle."""

    address: Any


@dataclass(slots=True, eq=False)
class Record:
    """An object, described: what would have made it, and what would have been put into it."""

    maker: Any = None  # a Name, for a sane file; None for a plain dict
    arguments: tuple[Any, ...] = ()
    state: Any = None
    items: list[Any] = field(default_factory=list)
    entries: list[tuple[Any, Any]] = field(default_factory=list)

    def mapping(self) -> dict[str, Any]:
        """The entries under words and whole numbers, the last of equal ones. Other keys are left out: hashing may recurse."""
        return {str(key)[:200]: value for key, value in self.entries if type(key) in (str, int)}


class Stack:
    """The pickle machine's stack, in pieces between marks."""

    def __init__(self) -> None:
        self.now: list[Any] = []
        self.below: list[list[Any]] = []

    def mark(self) -> None:
        self.below.append(self.now)
        self.now = []

    def since_mark(self) -> list[Any]:
        if not self.below:
            raise Unreadable("it has no mark where it needs one")
        found, self.now = self.now, self.below.pop()
        return found

    def push(self, value: Any) -> None:
        self.now.append(value)

    def pop(self) -> Any:
        if not self.now:
            raise Unreadable("it takes from an empty stack")
        return self.now.pop()

    @property
    def top(self) -> Any:
        if not self.now:
            raise Unreadable("it looks at an empty stack")
        return self.now[-1]


PUSHED_AS_GIVEN = {
    "INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT",
    "STRING", "BINSTRING", "SHORT_BINSTRING", "UNICODE", "SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8",
    "BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8",
}  # fmt: skip
CONSTANTS: Mapping[str, Any] = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False, "EMPTY_TUPLE": ()}


def read(stream: BinaryIO, references: list[Reference] | None = None) -> Any:
    """The object of the pickle at the stream's place, as names, records and plain values. Raises ValueError.

    What it refers to outside itself is also added to `references`, in its order.
    """
    stack, memo = Stack(), dict[int, Any]()
    for count, (operation, argument, _) in enumerate(pickletools.genops(stream)):
        if count >= INSTRUCTIONS:
            raise Unreadable(f"it has more than {INSTRUCTIONS:,} instructions")
        code, given = operation.name, cast(Any, argument)  # of a type that the instruction fixes
        if code in PUSHED_AS_GIVEN:
            stack.push(given)
        elif code in CONSTANTS:
            stack.push(CONSTANTS[code])
        else:
            match code:
                case "PROTO" | "FRAME":
                    pass
                case "STOP":
                    return stack.pop()
                case "MARK":
                    stack.mark()
                case "POP":
                    stack.pop() if stack.now else stack.since_mark()
                case "POP_MARK":
                    stack.since_mark()
                case "DUP":
                    stack.push(stack.top)
                case "PUT" | "BINPUT" | "LONG_BINPUT":
                    memo[given] = stack.top
                case "MEMOIZE":
                    memo[len(memo)] = stack.top
                case "GET" | "BINGET" | "LONG_BINGET":
                    if given not in memo:
                        raise Unreadable("it recalls what it has not remembered")
                    stack.push(memo[given])
                case "EMPTY_LIST":
                    stack.push([])
                case "EMPTY_DICT" | "EMPTY_SET":
                    stack.push(Record())
                case "LIST":
                    stack.push(stack.since_mark())
                case "TUPLE":
                    stack.push(tuple(stack.since_mark()))
                case "TUPLE1" | "TUPLE2" | "TUPLE3":
                    stack.push(tuple(reversed([stack.pop() for _ in range(int(code[-1]))])))
                case "DICT":
                    stack.push(Record(entries=pairs(stack.since_mark())))
                case "FROZENSET":
                    stack.push(Record(items=stack.since_mark()))
                case "APPEND":
                    put_in(stack, [stack.pop()])
                case "APPENDS" | "ADDITEMS":
                    put_in(stack, stack.since_mark())
                case "SETITEM":
                    value, key = stack.pop(), stack.pop()
                    record(stack).entries.append((key, value))
                case "SETITEMS":
                    found = pairs(stack.since_mark())
                    record(stack).entries.extend(found)
                case "GLOBAL":
                    module, _, name = given.partition(" ")
                    stack.push(Name(module, name))
                case "STACK_GLOBAL":
                    name, module = stack.pop(), stack.pop()
                    if not (isinstance(name, str) and isinstance(module, str)):
                        raise Unreadable("it names something by other than words")
                    stack.push(Name(module, name))
                case "INST":
                    module, _, name = given.partition(" ")
                    stack.push(Record(Name(module, name), tuple(stack.since_mark())))
                case "OBJ":
                    maker, *arguments = stack.since_mark() or [None]
                    stack.push(Record(maker, tuple(arguments)))
                case "REDUCE" | "NEWOBJ":
                    described, maker = stack.pop(), stack.pop()
                    stack.push(Record(maker, described if isinstance(described, tuple) else (described,)))
                case "NEWOBJ_EX":
                    named, described, maker = stack.pop(), stack.pop(), stack.pop()
                    stack.push(Record(maker, (described, named)))
                case "BUILD":
                    state = stack.pop()
                    record(stack).state = state
                case "PERSID" | "BINPERSID":
                    stack.push(Reference(given if code == "PERSID" else stack.pop()))
                    if references is not None:
                        references.append(stack.top)
                case _:  # extension codes and buffers outside the file
                    raise Unreadable(f"it uses the instruction {code}, which weights do not need")
    raise Unreadable("it has no end")


def record(stack: Stack) -> Record:
    """The object that is being filled."""
    if not isinstance(stack.top, Record):
        raise Unreadable("it fills something that cannot be filled")
    return stack.top


def put_in(stack: Stack, values: list[Any]) -> None:
    """Append to the list, or to what stands for one, that is on top once `values` are gone."""
    target = stack.top if isinstance(stack.top, list) else record(stack).items
    target.extend(values)


def pairs(flat: list[Any]) -> list[tuple[Any, Any]]:
    """Key, value, key, value as pairs."""
    if len(flat) % 2:
        raise Unreadable("it has a key without a value")
    return list(zip(flat[::2], flat[1::2], strict=True))
