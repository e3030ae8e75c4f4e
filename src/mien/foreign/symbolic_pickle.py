"""Reads a pickle symbolically, without executing it.

A pickle is a program that imports and calls functions. This reader interprets its instructions symbolically: a name stays a
name, and a call becomes a record of the function, its arguments and its state. No instruction can reach a function of this
process, so no list of forbidden names is needed.
"""

from __future__ import annotations

import pickletools
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, BinaryIO, NamedTuple, cast

INSTRUCTIONS = 1_000_000  # maximum in one pickle; a network of a thousand tensors needs about 50,000


class Unreadable(ValueError):
    """The file is invalid, or contains more than weights need."""


class Name(NamedTuple):
    """The name of a class or function in a pickle."""

    module: str
    name: str

    def __str__(self) -> str:
        return f"{self.module}.{self.name}"


class Reference(NamedTuple):
    """A reference to data outside the pickle (a persistent id)."""

    address: Any


@dataclass(slots=True, eq=False)
class Record:
    """A symbolic object: the callable that would create it, its arguments, and its content."""

    maker: Any = None  # a Name in a valid file; None for a plain dict
    arguments: tuple[Any, ...] = ()
    state: Any = None
    items: list[Any] = field(default_factory=list)
    entries: list[tuple[Any, Any]] = field(default_factory=list)

    def mapping(self) -> dict[str, Any]:
        """The entries with string and integer keys; the last of equal keys wins. Other keys are skipped: hashing may recurse."""
        return {str(key)[:200]: value for key, value in self.entries if type(key) in (str, int)}


class Stack:
    """The stack of the pickle machine, divided by marks."""

    def __init__(self) -> None:
        self.now: list[Any] = []
        self.below: list[list[Any]] = []

    def mark(self) -> None:
        self.below.append(self.now)
        self.now = []

    def since_mark(self) -> list[Any]:
        if not self.below:
            raise Unreadable("it has no mark where it needs one")
        values, self.now = self.now, self.below.pop()
        return values

    def push(self, value: Any) -> None:
        self.now.append(value)

    def pop(self) -> Any:
        if not self.now:
            raise Unreadable("it takes from an empty stack")
        return self.now.pop()

    @property
    def top(self) -> Any:
        if not self.now:
            raise Unreadable("it reads an empty stack")
        return self.now[-1]


LITERALS = {
    "INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT",
    "STRING", "BINSTRING", "SHORT_BINSTRING", "UNICODE", "SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8",
    "BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8",
}  # fmt: skip
CONSTANTS: Mapping[str, Any] = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False, "EMPTY_TUPLE": ()}


def read(stream: BinaryIO, references: list[Reference] | None = None) -> Any:
    """Read the pickle at the stream's position as names, records and plain values. Raises ValueError.

    Its references to outside data are also appended to `references`, in order.
    """
    stack, memo = Stack(), dict[int, Any]()
    for count, (operation, argument, _) in enumerate(pickletools.genops(stream)):
        if count >= INSTRUCTIONS:
            raise Unreadable(f"it has more than {INSTRUCTIONS:,} instructions")
        code, operand = operation.name, cast(Any, argument)  # its type depends on the instruction
        if code in LITERALS:
            stack.push(operand)
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
                    memo[operand] = stack.top
                case "MEMOIZE":
                    memo[len(memo)] = stack.top
                case "GET" | "BINGET" | "LONG_BINGET":
                    if operand not in memo:
                        raise Unreadable("it reads an empty memo entry")
                    stack.push(memo[operand])
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
                    entries = pairs(stack.since_mark())
                    record(stack).entries.extend(entries)
                case "GLOBAL":
                    module, _, name = operand.partition(" ")
                    stack.push(Name(module, name))
                case "STACK_GLOBAL":
                    name, module = stack.pop(), stack.pop()
                    if not (isinstance(name, str) and isinstance(module, str)):
                        raise Unreadable("it has a name that is not a string")
                    stack.push(Name(module, name))
                case "INST":
                    module, _, name = operand.partition(" ")
                    stack.push(Record(Name(module, name), tuple(stack.since_mark())))
                case "OBJ":
                    maker, *arguments = stack.since_mark() or [None]
                    stack.push(Record(maker, tuple(arguments)))
                case "REDUCE" | "NEWOBJ":
                    values, maker = stack.pop(), stack.pop()
                    stack.push(Record(maker, values if isinstance(values, tuple) else (values,)))
                case "NEWOBJ_EX":
                    keywords, values, maker = stack.pop(), stack.pop(), stack.pop()
                    stack.push(Record(maker, (values, keywords)))
                case "BUILD":
                    state = stack.pop()
                    record(stack).state = state
                case "PERSID" | "BINPERSID":
                    stack.push(Reference(operand if code == "PERSID" else stack.pop()))
                    if references is not None:
                        references.append(stack.top)
                case _:  # extension codes and buffers outside the file
                    raise Unreadable(f"it uses the instruction {code}, which weights do not need")
    raise Unreadable("it has no STOP instruction")


def record(stack: Stack) -> Record:
    """The record on top of the stack."""
    if not isinstance(stack.top, Record):
        raise Unreadable("it adds content to a value that is not an object")
    return stack.top


def put_in(stack: Stack, values: list[Any]) -> None:
    """Append `values` to the list, or to the record, on top of the stack."""
    target = stack.top if isinstance(stack.top, list) else record(stack).items
    target.extend(values)


def pairs(flat: list[Any]) -> list[tuple[Any, Any]]:
    """Split a flat list of keys and values into pairs."""
    if len(flat) % 2:
        raise Unreadable("it has a key without a value")
    return list(zip(flat[::2], flat[1::2], strict=True))
