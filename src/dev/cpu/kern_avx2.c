/* kern_avx2.c: kern.h with eight lanes and fused multiply-add. No state. */
#define ISA_NAME "avx2"
#define ISA_TABLE cpu_ops_avx2
#define L 8
#define NR 2
#define MR 6
#define DOT 0
#define PART 4

#include "dev/cpu/vec.h"

#include <immintrin.h>

#define V_FMA(a, b, c) ((vf)_mm256_fmadd_ps((__m256)(a), (__m256)(b), (__m256)(c)))
#define V_MAX(a, b) ((vf)_mm256_max_ps((__m256)(a), (__m256)(b)))
#define V_ANY(m) (!_mm256_testz_si256((__m256i)(m), (__m256i)(m)))
#define V_DOT(acc, a, b) (acc)
#define HALVES 0
#define LINES 1

/* Four dwords of rows r and r + 4, one in each half of a register. */
INLINE __m256i two_rows(const char *const *row, int r, int64_t at) {
    __m256i a = _mm256_castsi128_si256(_mm_loadu_si128((const __m128i *)(const void *)(row[r] + at)));
    return _mm256_inserti128_si256(a, _mm_loadu_si128((const __m128i *)(const void *)(row[r + 4] + at)), 1);
}

/* Four dwords of eight rows from pairs of rows: two rounds of unpacking. */
INLINE void unpack(__m256i a0, __m256i a1, __m256i a2, __m256i a3, vu o[4]) {
    __m256i t0 = _mm256_unpacklo_epi32(a0, a1), t1 = _mm256_unpackhi_epi32(a0, a1);
    __m256i t2 = _mm256_unpacklo_epi32(a2, a3), t3 = _mm256_unpackhi_epi32(a2, a3);
    o[0] = (vu)_mm256_unpacklo_epi64(t0, t2);
    o[1] = (vu)_mm256_unpackhi_epi64(t0, t2);
    o[2] = (vu)_mm256_unpacklo_epi64(t1, t3);
    o[3] = (vu)_mm256_unpackhi_epi64(t1, t3);
}

INLINE void turn_part(const char *const *row, int64_t at, vu o[4]) {
    unpack(two_rows(row, 0, at), two_rows(row, 1, at), two_rows(row, 2, at), two_rows(row, 3, at), o);
}

/* A whole line of eight rows, half by half. The halves of a row are read next to each other: rows are often so far apart that their
 * lines compete for the same places of the first-level cache, and a line that is left is gone. */
INLINE void turn_line(const char *const *row, int64_t at, vu o[16]) {
    UNROLL
    for (int h = 0; h < 2; h++, at += 32, o += 8) {
        __m256i a[4][2];
        UNROLL
        for (int r = 0; r < 4; r++) {
            UNROLL
            for (int q = 0; q < 2; q++) {
                a[r][q] = two_rows(row, r, at + q * 16);
                V_HIDE(a[r][q]); /* in this order */
            }
        }
        unpack(a[0][0], a[1][0], a[2][0], a[3][0], o);
        unpack(a[0][1], a[1][1], a[2][1], a[3][1], o + 4);
    }
}

INLINE void turn(const char *const *row, int64_t at, vu o[8]) {
    turn_part(row, at, o);
    turn_part(row, at + 16, o + 4);
}

INLINE vf v_f16_load(const void *p) { return (vf)_mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)p)); }
INLINE void v_f16_store(void *p, vf a) {
    _mm_storeu_si128((__m128i *)p, _mm256_cvtps_ph((__m256)a, _MM_FROUND_TO_NEAREST_INT));
}
INLINE vf v_f16_lo(vu d) {
    const __m256i even = _mm256_setr_epi8(0, 1, 4, 5, 8, 9, 12, 13, -1, -1, -1, -1, -1, -1, -1, -1, 0, 1, 4, 5, 8, 9, 12, 13,
                                          -1, -1, -1, -1, -1, -1, -1, -1);
    __m256i h = _mm256_permute4x64_epi64(_mm256_shuffle_epi8((__m256i)d, even), 0x08);
    return (vf)_mm256_cvtph_ps(_mm256_castsi256_si128(h));
}
INLINE vf v_f16_hi(vu d) { return v_f16_lo(d >> 16); }

#include "dev/cpu/kern.h"
