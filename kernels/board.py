"""Instructions by which threads meet without Python: numbers that all of them see, and compiled code handed on by its address.

A board is an array of int64 that several threads read and write at once, one number per cache line; a frame holds the arguments of
what lies on the board. team.py says who writes what. In the manner of simd.py: what an instruction does is said by the function of
the same name in simd_python.py.
"""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
from llvmlite import ir
from numba import types

from . import simd_python
from . import vector_code as code
from .simd import _instruction
from .simd_python import CALL, CODE, FAILED, LAST, LINE, NEXT

BOARD = 6 * LINE
FRAME = 4096  # bytes

I64 = ir.IntType(64)
ENTRY = ir.FunctionType(ir.VoidType(), [code.I8.as_pointer()])  # what everybody calls: code that finds its arguments in the frame
SEQUENTIAL = "seq_cst"  # every thread sees all changes in one order: who leaves sees who comes


def place(context: Any, builder: Any, board_type: Any, board: Any, at: Any) -> Any:
    """Pointer to board[at]."""
    return code.address(context, builder, board_type, board, at, I64)


@_instruction(simd_python.look)
def look(typing: Any, board: Any, at: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.load_atomic(place(context, builder, board, args[0], args[1]), SEQUENTIAL, 8)

    return types.int64(board, types.intp), generate


@_instruction(simd_python.put)
def put(typing: Any, board: Any, at: Any, value: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        builder.store_atomic(args[2], place(context, builder, board, args[0], args[1]), SEQUENTIAL, 8)
        return context.get_dummy_value()

    return types.void(board, types.intp, types.int64), generate


@_instruction(simd_python.add_on)
def add_on(typing: Any, board: Any, at: Any, value: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.atomic_rmw("add", place(context, builder, board, args[0], args[1]), args[2], SEQUENTIAL)

    return types.int64(board, types.intp, types.int64), generate


@_instruction(simd_python.pause)
def pause(typing: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        if code.host_has("sse2"):
            code.call(builder, "llvm.x86.sse2.pause", ir.VoidType(), [])
        elif code.host_has("neon"):
            code.call(builder, "llvm.aarch64.hint", ir.VoidType(), [code.I32(1)])
        return context.get_dummy_value()

    return types.void(), generate


@_instruction(simd_python.give_way)
def give_way(typing: Any) -> Any:
    name = "SwitchToThread" if sys.platform == "win32" else "sched_yield"

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        code.call(builder, name, code.I32, [])
        return context.get_dummy_value()

    return types.void(), generate


@_instruction(simd_python.offer)
def offer(typing: Any, board: Any, frame: Any, call: Any, piece: Any, arguments: Any) -> Any:
    kept = types.Tuple((board, arguments))
    inner = piece.get_call_type(typing, (types.intp, *arguments), {})

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        board_, frame_, call_, _, arguments_ = args
        kind = context.get_value_type(kept)
        if context.get_abi_sizeof(kind) > FRAME:
            raise ValueError(f"arguments of {context.get_abi_sizeof(kind)} bytes, expected at most {FRAME}")
        start = code.address(context, builder, frame, frame_, ir.Constant(I64, 0), kind)
        builder.store(context.make_tuple(builder, kept, [board_, arguments_]), start)
        entry = _entry(context, builder, kept, piece.dispatcher.get_compile_result(inner), inner)
        builder.store(builder.ptrtoint(entry, I64), place(context, builder, board, board_, ir.Constant(I64, CODE)))
        builder.store_atomic(call_, place(context, builder, board, board_, ir.Constant(I64, CALL)), SEQUENTIAL, 8)
        builder.call(entry, [builder.bitcast(start, code.I8.as_pointer())])
        return context.get_dummy_value()

    return types.void(board, frame, types.int64, piece, arguments), generate


def _entry(context: Any, builder: Any, kept: Any, compiled: Any, inner: Any) -> Any:
    """A function of the form ENTRY: takes pieces off the board, and calls the compiled code with each and what lies in the frame.

    All that can go wrong in there is that there is no memory for a buffer: then the board says so, and nobody goes on.
    """
    context.active_code_library.add_linking_library(compiled.library)
    entry = ir.Function(builder.module, ENTRY, builder.module.get_unique_name("entry"))
    entry.linkage = "internal"
    inside = ir.IRBuilder(entry.append_basic_block())
    frame = inside.load(inside.bitcast(entry.args[0], context.get_value_type(kept).as_pointer()))
    board, arguments = (inside.extract_value(frame, i) for i in range(2))
    next_, last = (place(context, inside, kept.types[0], board, ir.Constant(I64, at)) for at in (NEXT, LAST))
    end = inside.load(last)
    values = [inside.extract_value(arguments, i) for i in range(len(kept.types[1]))]
    take, compute, fail, done = (entry.append_basic_block() for _ in range(4))
    inside.branch(take)
    inside.position_at_end(take)
    piece = inside.atomic_rmw("add", next_, ir.Constant(I64, 1), SEQUENTIAL)
    inside.cbranch(inside.icmp_signed("<", piece, end), compute, done)
    inside.position_at_end(compute)
    function = context.declare_function(builder.module, compiled.fndesc)
    status, _ = context.call_conv.call_function(inside, function, inner.return_type, inner.args, [piece, *values])
    inside.cbranch(status.is_error, fail, take)
    inside.position_at_end(fail)
    inside.store_atomic(ir.Constant(I64, 1), place(context, inside, kept.types[0], board, ir.Constant(I64, FAILED)), SEQUENTIAL, 8)
    inside.branch(done)
    inside.position_at_end(done)
    inside.ret_void()
    return entry


@_instruction(simd_python.take_part)
def take_part(typing: Any, board: Any, frame: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        address = builder.load(place(context, builder, board, args[0], ir.Constant(I64, CODE)))
        start = code.address(context, builder, frame, args[1], ir.Constant(I64, 0), code.I8)
        builder.call(builder.inttoptr(address, ENTRY.as_pointer()), [start])
        return context.get_dummy_value()

    return types.void(board, frame), generate


def new_board() -> tuple[np.ndarray, np.ndarray]:
    """A board whose numbers have cache lines of their own, and a frame."""
    room = np.zeros(BOARD + LINE, np.int64)
    skip = -(room.ctypes.data // 8) % LINE
    return room[skip : skip + BOARD], np.zeros(FRAME, np.uint8)
