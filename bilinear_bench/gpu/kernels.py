"""The Triton kernels; the formulas, and how the kernels are launched, are in ``launch.py``.

Axes: ``b`` batch, ``i`` in1_features, ``j`` in2_features, ``o`` out_features. All arrays are contiguous. The grid has
one axis, since only the first axis of a grid may be long. Elements outside an array are loaded as zero.

Features are constants when a kernel is compiled. Then the compiler knows the alignment of the rows, and loads the
widest vectors that this allows, in a pipeline.

Length: a kernel is one compiled unit with all its arguments, and the gradients repeat the forward's addressing.
"""

# No annotations from __future__: Triton reads them, and they name the constants of a compiled kernel.
import triton
import triton.language as tl


@triton.jit
def forward_kernel(
    first,  # (b, c): the input that is contracted first
    other,  # (b, k): the other one
    weight,  # (o, i, j)
    bias,  # (o,), or anything without HAS_BIAS
    target,  # (b, o), or with parts (parts, b, o) in the accumulator's type
    batch,
    out,
    column_parts,  # parts along k; programs come as (part along c, part along k, o, tile of rows), the last fastest
    columns_each,  # tiles along k of a part
    terms_each,  # tiles along c of a part
    contracted: tl.constexpr,  # columns of the first input: c
    kept: tl.constexpr,  # columns of the other one: k
    contracted_stride: tl.constexpr,  # of the weight along c
    kept_stride: tl.constexpr,  # of the weight along k
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    DEPTH: tl.constexpr,
    ACCUMULATOR: tl.constexpr,
    PRECISION: tl.constexpr,
    HAS_BIAS: tl.constexpr,
):
    """Compute one output of a tile of rows, or one part of its sum."""
    program = tl.program_id(0)
    row_tiles = tl.cdiv(batch, ROWS)
    o = ((program // row_tiles) % out).to(tl.int64)
    part = program // (row_tiles * out)
    first_column, first_term = (part % column_parts) * columns_each, (part // column_parts) * terms_each
    # An array may have more than 2^31 elements, a tile has not: 64 bits for its start, 32 within it.
    start = ((program % row_tiles) * ROWS).to(tl.int64)
    row, term = tl.arange(0, ROWS), tl.arange(0, DEPTH)
    there = row < batch - start
    first += start * contracted
    other += start * kept
    weight += o * (contracted * kept)
    total = tl.zeros([ROWS], ACCUMULATOR)
    for column_tile in range(first_column, tl.minimum(first_column + columns_each, tl.cdiv(kept, COLUMNS))):
        columns = column_tile * COLUMNS + tl.arange(0, COLUMNS)
        tile = tl.zeros([ROWS, COLUMNS], ACCUMULATOR)
        for term_tile in range(first_term, tl.minimum(first_term + terms_each, tl.cdiv(contracted, DEPTH))):
            begin = term_tile * DEPTH
            left = tl.load(
                first + begin + (row[:, None] * contracted + term[None, :]),
                mask=there[:, None] & (term[None, :] < contracted - begin),
                other=0.0,
            )
            right = tl.load(
                weight
                + tl.cast(begin, tl.int64) * contracted_stride
                + tl.cast(column_tile * COLUMNS, tl.int64) * kept_stride
                + (term[:, None] * contracted_stride + tl.arange(0, COLUMNS)[None, :] * kept_stride),
                mask=(term[:, None] < contracted - begin) & (columns[None, :] < kept),
                other=0.0,
            )
            tile = tl.dot(left, right, tile, input_precision=PRECISION, out_dtype=ACCUMULATOR)
        inside = there[:, None] & (columns[None, :] < kept)
        factor = tl.load(other + (row[:, None] * kept + columns[None, :]), mask=inside, other=0.0)
        # Outside, an infinite input has made NaN of the zeros.
        total += tl.sum(tl.where(inside, tile * factor.to(ACCUMULATOR), 0.0), axis=1)
    if HAS_BIAS:
        total += tl.load(bias + o, mask=part == 0, other=0.0).to(ACCUMULATOR)
    place = target + (part.to(tl.int64) * batch + start) * out + o + row * out
    tl.store(place, total.to(target.dtype.element_ty), mask=there)


@triton.jit
def forward_of_small_pages_kernel(
    first,  # (b, c)
    other,  # (b, k)
    weight,  # (o, i, j), i and j no more than a tile has
    bias,  # (o,), or anything without HAS_BIAS
    target,  # (b, o)
    batch,
    out,
    outs_each,  # outputs of a program
    contracted: tl.constexpr,
    kept: tl.constexpr,
    contracted_stride: tl.constexpr,
    kept_stride: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    DEPTH: tl.constexpr,
    ACCUMULATOR: tl.constexpr,
    PRECISION: tl.constexpr,
    HAS_BIAS: tl.constexpr,
):
    """Compute several outputs of a tile of rows.

    An output has one tile of work, so loading the inputs would dominate. They stay loaded for several pages.
    """
    program = tl.program_id(0)
    row_tiles = tl.cdiv(batch, ROWS)
    start, first_out = ((program % row_tiles) * ROWS).to(tl.int64), (program // row_tiles) * outs_each
    row, term, column = tl.arange(0, ROWS), tl.arange(0, DEPTH), tl.arange(0, COLUMNS)
    there = row < batch - start
    inside = there[:, None] & (column[None, :] < kept)
    left = tl.load(
        first + start * contracted + (row[:, None] * contracted + term[None, :]),
        mask=there[:, None] & (term[None, :] < contracted),
        other=0.0,
    )
    factor = tl.load(other + start * kept + (row[:, None] * kept + column[None, :]), mask=inside, other=0.0)
    factor = factor.to(ACCUMULATOR)
    weight += first_out.to(tl.int64) * (contracted * kept)
    target += start * out
    for o in range(first_out, tl.minimum(first_out + outs_each, out)):
        right = tl.load(
            weight + (term[:, None] * contracted_stride + column[None, :] * kept_stride),
            mask=(term[:, None] < contracted) & (column[None, :] < kept),
            other=0.0,
        )
        tile = tl.dot(left, right, input_precision=PRECISION, out_dtype=ACCUMULATOR)
        total = tl.sum(tl.where(inside, tile * factor, 0.0), axis=1)
        if HAS_BIAS:
            total += tl.load(bias + o).to(ACCUMULATOR)
        tl.store(target + o + row * out, total.to(target.dtype.element_ty), mask=there)
        weight += contracted * kept


@triton.jit
def grad_input_kernel(
    other,  # (b, c): the other input
    grad_output,  # (b, o)
    weight,  # (o, i, j)
    target,  # (b, k), or with parts (parts, b, k) in the accumulator's type
    batch,
    out,
    outs_each,  # outputs of a part
    contracted: tl.constexpr,  # columns of the other input: c
    kept: tl.constexpr,  # columns of the gradient: k
    contracted_stride: tl.constexpr,  # of the weight along c
    kept_stride: tl.constexpr,  # of the weight along k
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    DEPTH: tl.constexpr,
    ACCUMULATOR: tl.constexpr,
    PRECISION: tl.constexpr,
    ONE_TILE: tl.constexpr,  # the other input has no more columns than a tile: it is loaded once
):
    """Compute a tile of an input's gradient, over all outputs or a part of them."""
    program = tl.program_id(0)
    row_tiles, column_tiles = tl.cdiv(batch, ROWS), tl.cdiv(kept, COLUMNS)
    part = program // (row_tiles * column_tiles)
    start = ((program % row_tiles) * ROWS).to(tl.int64)
    first_column = ((program // row_tiles) % column_tiles) * COLUMNS
    row, column, term = tl.arange(0, ROWS), tl.arange(0, COLUMNS), tl.arange(0, DEPTH)
    there, inside = row < batch - start, column < kept - first_column
    other += start * contracted
    grad_output += start * out
    weight += (part * outs_each).to(tl.int64) * (contracted * kept) + first_column.to(tl.int64) * kept_stride
    total = tl.zeros([ROWS, COLUMNS], ACCUMULATOR)
    if ONE_TILE:
        left = tl.load(
            other + (row[:, None] * contracted + term[None, :]),
            mask=there[:, None] & (term[None, :] < contracted),
            other=0.0,
        )
    for o in range(part * outs_each, tl.minimum((part + 1) * outs_each, out)):
        if ONE_TILE:  # no inner loop: the weights of the next output can be prefetched
            right = tl.load(
                weight + (term[:, None] * contracted_stride + column[None, :] * kept_stride),
                mask=(term[:, None] < contracted) & inside[None, :],
                other=0.0,
            )
            tile = tl.dot(left, right, input_precision=PRECISION, out_dtype=ACCUMULATOR)
        else:
            tile = tl.zeros([ROWS, COLUMNS], ACCUMULATOR)
            for term_tile in range(tl.cdiv(contracted, DEPTH)):
                first = term_tile * DEPTH
                left = tl.load(
                    other + first + (row[:, None] * contracted + term[None, :]),
                    mask=there[:, None] & (term[None, :] < contracted - first),
                    other=0.0,
                )
                right = tl.load(
                    weight
                    + tl.cast(first, tl.int64) * contracted_stride
                    + (term[:, None] * contracted_stride + column[None, :] * kept_stride),
                    mask=(term[:, None] < contracted - first) & inside[None, :],
                    other=0.0,
                )
                tile = tl.dot(left, right, tile, input_precision=PRECISION, out_dtype=ACCUMULATOR)
        scale = tl.load(grad_output + o + row * out, mask=there, other=0.0).to(ACCUMULATOR)
        total += scale[:, None] * tile
        weight += contracted * kept
    place = target + (part.to(tl.int64) * batch + start) * kept + first_column + (row[:, None] * kept + column[None, :])
    tl.store(place, total.to(target.dtype.element_ty), mask=there[:, None] & inside[None, :])


@triton.jit
def grad_weight_kernel(
    input1,  # (b, i)
    input2,  # (b, j), or (j, b) if it is transposed
    grad_output,  # (b, o)
    target,  # (o, i, j), or with parts (parts, o, i, j) in the accumulator's type
    batch,
    out,
    rows_each,  # tiles of the batch of a part
    in1: tl.constexpr,
    in2: tl.constexpr,
    ROWS: tl.constexpr,  # along i
    COLUMNS: tl.constexpr,  # along j
    DEPTH: tl.constexpr,  # along the batch
    ACCUMULATOR: tl.constexpr,
    PRECISION: tl.constexpr,
    TRANSPOSED: tl.constexpr,
):
    """Compute a tile of one page of the weight's gradient, over the batch or a part of it.

    Outputs change fastest: programs that run together share their tiles of the inputs.
    """
    program = tl.program_id(0)
    feature_tiles, column_tiles = tl.cdiv(in1, ROWS), tl.cdiv(in2, COLUMNS)
    o = (program % out).to(tl.int64)
    tile = (program // out) % (feature_tiles * column_tiles)
    part = program // (out * feature_tiles * column_tiles)
    first_feature, first_column = (tile // column_tiles) * ROWS, (tile % column_tiles) * COLUMNS
    feature, column, row = tl.arange(0, ROWS), tl.arange(0, COLUMNS), tl.arange(0, DEPTH)
    with_feature, with_column = feature < in1 - first_feature, column < in2 - first_column
    if TRANSPOSED:
        within = tl.cast(first_column, tl.int64) * batch + (row[:, None] + column.to(tl.int64)[None, :] * batch)
    else:
        within = first_column + (row[:, None] * in2 + column[None, :])
    total = tl.zeros([ROWS, COLUMNS], ACCUMULATOR)
    for row_tile in range(part * rows_each, tl.minimum((part + 1) * rows_each, tl.cdiv(batch, DEPTH))):
        first = tl.cast(row_tile * DEPTH, tl.int64)
        there = row < batch - first
        scale = tl.load(grad_output + first * out + o + row * out, mask=there, other=0.0).to(ACCUMULATOR)
        left = tl.load(
            input1 + first * in1 + first_feature + (row[None, :] * in1 + feature[:, None]),
            mask=there[None, :] & with_feature[:, None],
            other=0.0,
        )
        right = tl.load(
            input2 + (first if TRANSPOSED else first * in2) + within,
            mask=there[:, None] & with_column[None, :],
            other=0.0,
        )
        scaled = (left.to(ACCUMULATOR) * scale[None, :]).to(left.dtype)
        total = tl.dot(scaled, right, total, input_precision=PRECISION, out_dtype=ACCUMULATOR)
    place = target + (part.to(tl.int64) * out + o) * (in1 * in2) + first_feature.to(tl.int64) * in2 + first_column
    inside = with_feature[:, None] & with_column[None, :]
    tl.store(place + (feature[:, None] * in2 + column[None, :]), total.to(target.dtype.element_ty), mask=inside)


@triton.jit
def transpose_kernel(
    pages,  # (n, r, c)
    target,  # (n, c, r)
    rows,
    columns,
    EDGE: tl.constexpr,
):
    """Copy a square of a page, transposed; on an H200 faster than PyTorch's copy."""
    program = tl.program_id(0)
    row_tiles, column_tiles = tl.cdiv(rows, EDGE), tl.cdiv(columns, EDGE)
    page = (program // (row_tiles * column_tiles)).to(tl.int64) * rows * columns
    first_row, first_column = (program // column_tiles % row_tiles) * EDGE, (program % column_tiles) * EDGE
    row, column = first_row + tl.arange(0, EDGE), first_column + tl.arange(0, EDGE)
    inside = (row[:, None] < rows) & (column[None, :] < columns)
    read = tl.load(pages + page + (row.to(tl.int64)[:, None] * columns + column[None, :]), mask=inside)
    write = target + page + (column.to(tl.int64)[:, None] * rows + row[None, :])
    tl.store(write, tl.trans(read), mask=tl.trans(inside))
