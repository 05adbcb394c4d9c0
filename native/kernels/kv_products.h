// The two products of attention with a page of the cache (machine/kv_format.h), for a tile of queries:
//
//     scores  s[query][64]  = sum over d of        q[query][d] * K[d][64]            lanes are positions
//     output  o[query][dim] += sum over position of p[query][position] * V[position][dim]     lanes are dims
//
// Float formats: both are one loop, some queries times some vectors in registers, running down a matrix of vectors
// in memory. For 8 queries x 2 vectors that is 16 sums, and 2 loads and 8 broadcasts for 16 multiplies. Where more
// queries than a block share a page, its 16-bit elements become floats once, in scratch.
//
// Integer formats: both are the product of the machine's other integer weights, with 16-bit activations
// (simd::high_accumulator): exact sums of at most 255 * 32639 * 64 = 5.3e8 over a block of columns, each scaled and added
// by one fused multiply-add. 32 elements of q are a block, and err by 2^-16 of the greatest of them. So do the 64
// positions of p times the scale of V, which differs by block of dims and is multiplied in before.
#pragma once

#include <cstddef>
#include <cstdint>

#include "machine/kv_format.h"
#include "simd/simd.h"

namespace clarion {

// Queries that share each load at most: 8 where there are 32 vector registers, otherwise 4.
inline constexpr int most_queries = simd::tile_f32 >= 8 ? 8 : 4;

// Rows of floats in scratch.
struct Matrix {
    float* data;
    int64_t stride;

    float* row(int64_t r) const { return data + r * stride; }
    Matrix from(int64_t r) const { return {row(r), stride}; }
};

struct Range {
    int64_t from, to;
    bool empty() const { return from >= to; }
};

// A matrix of a page. While up to four queries read it, that of the next page is fetched: pages lie anywhere, the
// processor cannot guess where, and half a page ahead was too late (a page of q8_0 in 8.7 KB is read in 0.8 us).
struct PageMatrix {
    KvFormat format;
    const std::byte* data;
    int64_t dim;
    const std::byte* next;
    int64_t next_bytes;
};

// Rows of activations x = scale * a, a in 16 bits: quads of four columns, then for each block its scale and sum of a.
struct Encoded {
    struct Block {
        float scale;
        int32_t sum;
    };
    std::byte* data;
    int64_t stride, columns;

    static constexpr int64_t quad_bytes = simd::high_accumulator::quad_bytes;
    static int64_t bytes(int64_t columns, int64_t blocks) {
        return columns / 4 * quad_bytes + blocks * static_cast<int64_t>(sizeof(Block));
    }
    uint8_t* quads(int64_t row) const { return reinterpret_cast<uint8_t*>(data + row * stride); }
    Block* blocks(int64_t row) const {
        return reinterpret_cast<Block*>(data + row * stride + columns / 4 * quad_bytes);
    }
};
// Bytes of a row: a query in blocks of 32 dims; weights of the 64 positions of a page, one block for each block of the
// values' dims.
int64_t encoded_query_bytes(int64_t dim);
int64_t encoded_weights_bytes(int64_t dim);

// q [dim], padded with zeros to whole blocks.
void encode_query(const float* q, int64_t dim, const Encoded& rows, int64_t row);

// Scratch of `prepare`, in bytes, for keys and values of these dims.
int64_t prepared_bytes(int64_t dim_k, int64_t dim_v);

// The matrix as several blocks of queries read it: nibbles as bytes and, for more than four queries, 16-bit floats
// as floats. `scratch` must outlive the result.
PageMatrix prepare(const PageMatrix& m, bool values, int64_t queries, std::byte* scratch);

// Queries of the block that begins where n are left: 1, 4 or most_queries.
int64_t block_size(int64_t n);

// For a block of n queries (as block_size says) and prepared float matrices:
// s[j][i] += q[j] . K[i] for positions of the vectors `vectors` (16 positions each);
void add_scores(int64_t n, Matrix q, const PageMatrix& keys, Range vectors, Matrix s);
// o[j] += sum over `positions` of p[j][i] * V[i].
void add_values(int64_t n, Matrix p, const PageMatrix& values, Range positions, Matrix o);

// The same for prepared integer matrices.
void add_scores(int64_t n, const Encoded& q, const PageMatrix& keys, Range vectors, Matrix s);
// p [64] times the scales of the values, zero outside the range whatever lies there.
void encode_weights(const float* p, Range range, const PageMatrix& values, const Encoded& rows, int64_t row);
void add_values(int64_t n, const Encoded& p, const PageMatrix& values, Matrix o);

}  // namespace clarion
