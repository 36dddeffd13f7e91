"""Instructions that Numba has no words for: dot products of code rows, float32 tiles, prefetch, bit casts.

Written as LLVM with the dimension known at run time. A code row's dot product is the same integer from every variant.
A float32 product adds in one fixed order (16 lanes, a fixed tree, then the rest), whatever the number of rows and
queries in a tile, so that one pair of vectors has one distance.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from vecdb.kernels.cpu.cache import part
from vecdb.kernels.cpu.target import TARGET

_I8 = ir.IntType(8)
_I32 = ir.IntType(32)
_I64 = ir.IntType(64)
_F32 = ir.FloatType()
_LANES = 16
_ROWS = 4
"""Rows that every kernel here takes at once."""


def _array(context: Any, builder: Any, kind: Any, value: Any) -> Any:
    return context.make_array(kind)(context, builder, value)


def _row_starts(builder: Any, ids: Any, at: Any, width: Any, base: Any) -> list[Any]:
    """Pointers to the rows ``ids[at]`` ... of a table of ``width`` elements a row."""
    starts = []
    for number in range(_ROWS):
        index = builder.load(builder.gep(ids, [builder.add(at, _I64(number))]))
        starts.append(builder.gep(base, [builder.mul(builder.sext(index, _I64), width)]))
    return starts


def _pick(builder: Any, first: Any, second: Any, lanes: list[int]) -> Any:
    """The named lanes of two vectors laid end to end."""
    return builder.shuffle_vector(
        first, second, ir.Constant(ir.VectorType(_I32, len(lanes)), [_I32(lane) for lane in lanes])
    )


def _totals(builder: Any, sums: list[Any]) -> Any:
    """The sums of the lanes of four vectors, side by side: all four are folded at once, not one after the other."""
    lanes = sums[0].type.count
    quarters = range(0, lanes, 4)
    pairs = []
    for first, second in ((sums[0], sums[1]), (sums[2], sums[3])):
        low = [lane for at in quarters for lane in (at, lanes + at, at + 1, lanes + at + 1)]
        high = [lane for at in quarters for lane in (at + 2, lanes + at + 2, at + 3, lanes + at + 3)]
        pairs.append(builder.add(_pick(builder, first, second, low), _pick(builder, first, second, high)))
    low = [lane for at in quarters for lane in (at, at + 1, lanes + at, lanes + at + 1)]
    high = [lane for at in quarters for lane in (at + 2, at + 3, lanes + at + 2, lanes + at + 3)]
    total = builder.add(_pick(builder, pairs[0], pairs[1], low), _pick(builder, pairs[0], pairs[1], high))
    while lanes > _ROWS:
        lanes //= 2
        upper = _pick(builder, total, total, list(range(lanes, 2 * lanes)))
        total = builder.add(_pick(builder, total, total, list(range(lanes))), upper)
    return total


def _store(builder: Any, four: Any, target: Any) -> None:
    """Store a vector of four int32, aligned like one of them."""
    builder.store(four, builder.bitcast(target, four.type.as_pointer()), align=4)


def _codes_by_vnni(width: int) -> Any:
    """``out[at + r] = dot(table[ids[at + r]], query)`` for four rows by ``vpdpbusd`` of ``width`` bytes."""
    lanes = width // 4
    vector = ir.VectorType(_I32, lanes)

    @intrinsic
    def dot_codes(typing: Any, table: Any, ids: Any, at: Any, query: Any, out: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            arrays = [_array(context, builder, signature.args[n], args[n]) for n in (0, 1, 3, 4)]
            base, index, q, result = (array.data for array in arrays)
            stride = arrays[2].nitems
            # The form with i32 vectors is understood by every LLVM since 9; newer ones upgrade it to bytes.
            step = cgutils.get_or_insert_function(
                builder.module, ir.FunctionType(vector, [vector] * 3), f"llvm.x86.avx512.vpdpbusd.{width * 8}"
            )
            starts = _row_starts(builder, index, args[2], stride, base)
            sums = [cgutils.alloca_once(builder, vector) for _ in range(_ROWS)]
            for slot in sums:
                builder.store(ir.Constant(vector, None), slot)
            with cgutils.for_range(builder, builder.udiv(stride, _I64(width))) as loop:
                offset = builder.mul(loop.index, _I64(width))
                part_q = builder.load(builder.bitcast(builder.gep(q, [offset]), vector.as_pointer()), align=1)
                for start, slot in zip(starts, sums, strict=True):
                    codes = builder.load(builder.bitcast(builder.gep(start, [offset]), vector.as_pointer()), align=1)
                    builder.store(builder.call(step, [builder.load(slot), codes, part_q]), slot)
            _store(builder, _totals(builder, [builder.load(slot) for slot in sums]), builder.gep(result, [args[2]]))
            return context.get_dummy_value()

        return types.void(table, ids, types.int64, query, out), generate

    return dot_codes


def _nibbles_by_vnni(width: int) -> Any:
    """``out[at + r] = dot(nibbles of row ids[at + r], query)`` for four rows, ``width`` bytes a step.

    The query has two bytes for each byte of a row: those of the low halves, then those of the high halves.
    """
    lanes = width // 4
    vector = ir.VectorType(_I32, lanes)

    @intrinsic
    def dot_nibbles(typing: Any, nibbles: Any, ids: Any, at: Any, query: Any, out: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            arrays = [_array(context, builder, signature.args[n], args[n]) for n in (0, 1, 3, 4)]
            base, index, q, result = (array.data for array in arrays)
            stride = cgutils.unpack_tuple(builder, arrays[0].shape)[1]
            step = cgutils.get_or_insert_function(
                builder.module, ir.FunctionType(vector, [vector] * 3), f"llvm.x86.avx512.vpdpbusd.{width * 8}"
            )
            starts = _row_starts(builder, index, args[2], stride, base)
            sums = [cgutils.alloca_once(builder, vector) for _ in range(_ROWS)]
            for slot in sums:
                builder.store(ir.Constant(vector, None), slot)
            half = ir.Constant(vector, [0x0F0F_0F0F] * lanes)
            four = ir.Constant(vector, [4] * lanes)
            with cgutils.for_range(builder, builder.udiv(stride, _I64(width))) as loop:
                offset = builder.mul(loop.index, _I64(width))
                low, high = (
                    builder.load(builder.bitcast(builder.gep(q, [place]), vector.as_pointer()), align=1)
                    for place in (offset, builder.add(offset, stride))
                )
                for start, slot in zip(starts, sums, strict=True):
                    both = builder.load(builder.bitcast(builder.gep(start, [offset]), vector.as_pointer()), align=1)
                    added = builder.call(step, [builder.load(slot), builder.and_(both, half), low])
                    upper = builder.and_(builder.lshr(both, four), half)
                    builder.store(builder.call(step, [added, upper, high]), slot)
            _store(builder, _totals(builder, [builder.load(slot) for slot in sums]), builder.gep(result, [args[2]]))
            return context.get_dummy_value()

        return types.void(nibbles, ids, types.int64, query, out), generate

    return dot_nibbles


def _promise_by_vnni(width: int) -> Any:
    """``out[at + r]`` = the dot product that the sketch ``ids[at + r]`` promises at most, for four rows.

    ``width`` bits a step; ``total`` is the sum of ``query``, ``spread`` the standard errors allowed times its length.
    """
    lanes = width // 4
    vector = ir.VectorType(_I32, lanes)
    octets = ir.VectorType(_I8, width)
    bits = ir.VectorType(ir.IntType(1), width)
    four = ir.VectorType(_I64, _ROWS)
    word = ir.IntType(width)

    @intrinsic
    def promise(typing: Any, sketches: Any, ids: Any, at: Any, query: Any, total: Any, spread: Any, out: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            arrays = [_array(context, builder, signature.args[n], args[n]) for n in (0, 1, 3, 6)]
            base, index, q, result = (array.data for array in arrays)
            step = cgutils.get_or_insert_function(
                builder.module, ir.FunctionType(vector, [vector] * 3), f"llvm.x86.avx512.vpdpbusd.{width * 8}"
            )
            stride = cgutils.unpack_tuple(builder, arrays[0].shape)[1]
            starts = _row_starts(builder, index, args[2], stride, base)
            sums = [cgutils.alloca_once(builder, vector) for _ in range(_ROWS)]
            for slot in sums:
                builder.store(ir.Constant(vector, None), slot)
            ones = ir.Constant(vector, [0x0101_0101] * lanes)
            none = ir.Constant(octets, None)
            with cgutils.for_range(builder, builder.udiv(arrays[2].nitems, _I64(width))) as loop:
                offset = builder.mul(loop.index, _I64(width))
                part_q = builder.load(builder.bitcast(builder.gep(q, [offset]), octets.as_pointer()), align=1)
                for start, slot in zip(starts, sums, strict=True):
                    place = builder.gep(start, [builder.mul(loop.index, _I64(width // 8))])
                    mask = builder.bitcast(builder.load(builder.bitcast(place, word.as_pointer()), align=1), bits)
                    picked = builder.bitcast(builder.select(mask, part_q, none), vector)
                    builder.store(builder.call(step, [builder.load(slot), ones, picked]), slot)
            fields = ir.Constant(four, ir.Undefined)
            for number, start in enumerate(starts):
                last = builder.gep(start, [builder.sub(stride, _I64(8))])
                field = builder.load(builder.bitcast(last, _I64.as_pointer()), align=4)
                fields = builder.insert_element(fields, field, _I32(number))

            def alike(value: Any) -> Any:
                first = builder.insert_element(ir.Constant(four, ir.Undefined), value, _I32(0))
                return builder.shuffle_vector(first, first, ir.Constant(ir.VectorType(_I32, _ROWS), None))

            whole, byte = ir.Constant(four, [32] * _ROWS), ir.Constant(four, [8] * _ROWS)
            factor, error = builder.ashr(builder.shl(fields, whole), whole), builder.ashr(fields, whole)
            set_bits = builder.sext(_totals(builder, [builder.load(slot) for slot in sums]), four)
            signed = builder.sub(builder.add(set_bits, set_bits), alike(args[4]))
            near = builder.ashr(builder.mul(signed, factor), byte)
            near = builder.add(near, builder.ashr(builder.mul(error, alike(args[5])), byte))
            _store(builder, builder.trunc(near, ir.VectorType(_I32, _ROWS)), builder.gep(result, [args[2]]))
            return context.get_dummy_value()

        return types.void(sketches, ids, types.int64, query, types.int64, types.int64, out), generate

    return promise


@part
def _field_of(row: Any, at: int) -> Any:
    """The int32, little-endian, at a byte of a sketch."""
    field = np.uint32(row[at]) | np.uint32(row[at + 1]) << np.uint32(8)
    field |= np.uint32(row[at + 2]) << np.uint32(16) | np.uint32(row[at + 3]) << np.uint32(24)
    return np.int64(np.int32(field))


@part
def _portable_promise_4(sketches: Any, ids: Any, at: int, query: Any, whole: int, spread: int, out: Any) -> None:
    for number in range(at, at + 4):
        row = sketches[ids[number]]
        total = np.int32(0)
        for octet in range(query.shape[0] >> 3):
            word = np.int32(row[octet])
            for bit in range(8):
                total += np.int32(query[(octet << 3) + bit]) & -((word >> np.int32(bit)) & np.int32(1))
        factor, error = _field_of(row, row.shape[0] - 8), _field_of(row, row.shape[0] - 4)
        out[number] = (((2 * np.int64(total) - whole) * factor) >> 8) + ((error * spread) >> 8)


@part
def _portable_codes_4(table: Any, ids: Any, at: int, query: Any, out: Any) -> None:
    for number in range(at, at + 4):
        row = table[ids[number]]
        total = np.int32(0)
        for j in range(query.shape[0]):
            total += np.int32(row[j]) * np.int32(query[j])
        out[number] = total


@part
def _portable_nibbles_4(nibbles: Any, ids: Any, at: int, query: Any, out: Any) -> None:
    width = nibbles.shape[1]
    for number in range(at, at + 4):
        row = nibbles[ids[number]]
        total = np.int32(0)
        for j in range(width):
            both = np.int32(row[j])
            total += (both & np.int32(15)) * np.int32(query[j]) + (both >> np.int32(4)) * np.int32(query[width + j])
        out[number] = total


if TARGET.vnni_bytes:
    dot_codes_4 = _codes_by_vnni(TARGET.vnni_bytes)
    dot_nibbles_4 = _nibbles_by_vnni(TARGET.vnni_bytes)
    promise_4 = _promise_by_vnni(TARGET.vnni_bytes)
else:
    dot_codes_4 = _portable_codes_4
    dot_nibbles_4 = _portable_nibbles_4
    promise_4 = _portable_promise_4


def _tree_sum(builder: Any, value: Any) -> Any:
    """Sum of the lanes of a float32 vector, halves onto halves."""
    lanes = _LANES
    while lanes > 1:
        lanes //= 2
        halves = [
            builder.shuffle_vector(
                value, value, ir.Constant(ir.VectorType(_I32, lanes), [_I32(n + at) for n in range(lanes)])
            )
            for at in (0, lanes)
        ]
        value = builder.fadd(halves[0], halves[1])
    return builder.extract_element(value, _I32(0))


def _float_tile(queries: int, squared_difference: bool) -> Any:
    """Four rows times ``queries`` queries: ``out[r * queries + q]`` is their dot product or squared difference."""
    vector = ir.VectorType(_F32, _LANES)

    def accumulate(builder: Any, kind: Any, suffix: str, total: Any, x: Any, q: Any) -> Any:
        if squared_difference:
            x = q = builder.fsub(x, q)
        if not TARGET.fused:
            return builder.fadd(total, builder.fmul(x, q))
        fma = cgutils.get_or_insert_function(builder.module, ir.FunctionType(kind, [kind] * 3), f"llvm.fma.{suffix}")
        return builder.call(fma, [x, q, total])

    @intrinsic
    def tile(typing: Any, vectors: Any, ids: Any, at: Any, questions: Any, first: Any, out: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            table, index, asked, result = (_array(context, builder, signature.args[n], args[n]) for n in (0, 1, 3, 5))
            dim = cgutils.unpack_tuple(builder, asked.shape)[1]
            xs = _row_starts(builder, index.data, args[2], dim, table.data)
            qs = [builder.gep(asked.data, [builder.mul(builder.add(args[4], _I64(n)), dim)]) for n in range(queries)]
            sums = [[cgutils.alloca_once(builder, vector) for _ in qs] for _ in xs]
            rests = [[cgutils.alloca_once(builder, _F32) for _ in qs] for _ in xs]

            def block(totals: Any, kind: Any, suffix: str, offset: Any) -> None:
                loaded = [
                    builder.load(builder.bitcast(builder.gep(q, [offset]), kind.as_pointer()), align=4) for q in qs
                ]
                for x, line in zip(xs, totals, strict=True):
                    value = builder.load(builder.bitcast(builder.gep(x, [offset]), kind.as_pointer()), align=4)
                    for q, slot in zip(loaded, line, strict=True):
                        builder.store(accumulate(builder, kind, suffix, builder.load(slot), value, q), slot)

            for totals, kind in ((sums, vector), (rests, _F32)):
                for line in totals:
                    for slot in line:
                        builder.store(ir.Constant(kind, None) if kind is vector else _F32(0.0), slot)
            blocks = builder.udiv(dim, _I64(_LANES))
            with cgutils.for_range(builder, blocks) as loop:
                block(sums, vector, "v16f32", builder.mul(loop.index, _I64(_LANES)))
            whole = builder.mul(blocks, _I64(_LANES))
            with cgutils.for_range(builder, builder.sub(dim, whole)) as loop:
                block(rests, _F32, "f32", builder.add(whole, loop.index))
            for r, (line, ends) in enumerate(zip(sums, rests, strict=True)):
                for q, (slot, rest) in enumerate(zip(line, ends, strict=True)):
                    value = builder.fadd(_tree_sum(builder, builder.load(slot)), builder.load(rest))
                    builder.store(value, builder.gep(result.data, [_I64(r * queries + q)]))
            return context.get_dummy_value()

        return types.void(vectors, ids, types.int64, questions, types.int64, out), generate

    return tile


dot_tile_1 = _float_tile(1, squared_difference=False)
l2_tile_1 = _float_tile(1, squared_difference=True)
dot_tile_many = _float_tile(TARGET.query_tile, squared_difference=False)
l2_tile_many = _float_tile(TARGET.query_tile, squared_difference=True)


@intrinsic
def prefetch(typing: Any, array: Any, at: Any) -> Any:
    """Ask for the cache line of ``array.ravel()[at]``, C order; any ``at`` is safe."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        data = _array(context, builder, signature.args[0], args[0]).data
        bytes_pointer = _I8.as_pointer()
        fetch = cgutils.get_or_insert_function(
            builder.module, ir.FunctionType(ir.VoidType(), [bytes_pointer, _I32, _I32, _I32]), "llvm.prefetch.p0"
        )
        address = builder.bitcast(builder.gep(data, [args[1]]), bytes_pointer)
        builder.call(fetch, [address, _I32(0), _I32(3), _I32(1)])
        return context.get_dummy_value()

    return types.void(array, types.int64), generate


def _bit_cast(source: Any, target: Any, kind: Any) -> Any:
    @intrinsic
    def cast(typing: Any, value: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            return builder.bitcast(args[0], kind)

        return target(source), generate

    return cast


@intrinsic
def pointer_of(typing: Any, address: Any) -> Any:
    """The pointer to an address, as ``numba.carray`` takes it."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.inttoptr(args[0], _I8.as_pointer())

    return types.voidptr(types.int64), generate


@intrinsic
def lowest_bit(typing: Any, word: Any) -> Any:
    """The place of the lowest bit that is set in a word of 64, which is not 0."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.cttz(args[0], ir.Constant(ir.IntType(1), 1))

    return types.int64(types.uint64), generate


@intrinsic
def shift_up(typing: Any, array: Any, first: Any, end: Any, by: Any) -> Any:
    """``array[first + by : end + by] = array[first:end]`` of 64-bit integers; nothing if end < first."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        data = _array(context, builder, signature.args[0], args[0]).data
        source = builder.gep(data, [args[1]])
        target = builder.gep(data, [builder.add(args[1], args[3])])
        length = builder.sub(args[2], args[1])
        length = builder.select(builder.icmp_signed("<", length, _I64(0)), _I64(0), length)
        cgutils.raw_memmove(builder, target, source, length, 8)
        return context.get_dummy_value()

    return types.void(array, types.int64, types.int64, types.int64), generate


bits_of = _bit_cast(types.float32, types.int32, _I32)
float_of = _bit_cast(types.int32, types.float32, _F32)
