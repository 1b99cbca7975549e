/* vec512.h: what the two AVX-512 makers of kern.h share. */
#ifndef MINISGL_DEV_CPU_VEC512_H
#define MINISGL_DEV_CPU_VEC512_H
#include "dev/cpu/vec.h"

#include <immintrin.h>

#define V_FMA(a, b, c) ((vf)_mm512_fmadd_ps((__m512)(a), (__m512)(b), (__m512)(c)))
#define HALVES 1
#define LINES 0
#define V_LOW(a) ((hf)_mm512_castsi512_si256((__m512i)(a)))
#define V_FMA_HALF(a, b, c) ((hf)_mm256_fmadd_ps((__m256)(a), (__m256)(b), (__m256)(c)))
#define V_MAX(a, b) ((vf)_mm512_max_ps((__m512)(a), (__m512)(b)))
#define V_ANY(m) (_mm512_movepi32_mask((__m512i)(m)) != 0)

/* Pairs, fours, then quarters of registers: 64 shuffles, and every line of memory is read by one load. */
INLINE void turn(const char *const *row, int64_t at, vu o[16]) {
    __m512i a[16], b[16];
    UNROLL
    for (int i = 0; i < 16; i++) a[i] = _mm512_loadu_si512(row[i] + at);
    UNROLL
    for (int i = 0; i < 16; i += 2) {
        b[i] = _mm512_unpacklo_epi32(a[i], a[i + 1]);
        b[i + 1] = _mm512_unpackhi_epi32(a[i], a[i + 1]);
    }
    UNROLL
    for (int i = 0; i < 16; i += 4) { /* a[i + j]: quarter q is dword 4 q + j of rows i .. i + 3 */
        a[i] = _mm512_unpacklo_epi64(b[i], b[i + 2]);
        a[i + 1] = _mm512_unpackhi_epi64(b[i], b[i + 2]);
        a[i + 2] = _mm512_unpacklo_epi64(b[i + 1], b[i + 3]);
        a[i + 3] = _mm512_unpackhi_epi64(b[i + 1], b[i + 3]);
    }
    UNROLL
    for (int j = 0; j < 4; j++) {
        __m512i x0 = _mm512_shuffle_i32x4(a[j], a[4 + j], 0x88), x1 = _mm512_shuffle_i32x4(a[j], a[4 + j], 0xdd);
        __m512i y0 = _mm512_shuffle_i32x4(a[8 + j], a[12 + j], 0x88), y1 = _mm512_shuffle_i32x4(a[8 + j], a[12 + j], 0xdd);
        o[j] = (vu)_mm512_shuffle_i32x4(x0, y0, 0x88);
        o[4 + j] = (vu)_mm512_shuffle_i32x4(x1, y1, 0x88);
        o[8 + j] = (vu)_mm512_shuffle_i32x4(x0, y0, 0xdd);
        o[12 + j] = (vu)_mm512_shuffle_i32x4(x1, y1, 0xdd);
    }
}

#define PART 16
#define turn_part turn

INLINE vf v_f16_load(const void *p) { return (vf)_mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)p)); }
INLINE void v_f16_store(void *p, vf a) {
    _mm256_storeu_si256((__m256i *)p, _mm512_cvtps_ph((__m512)a, _MM_FROUND_TO_NEAREST_INT));
}
INLINE vf v_f16_lo(vu d) { return (vf)_mm512_cvtph_ps(_mm512_cvtepi32_epi16((__m512i)d)); }
INLINE vf v_f16_hi(vu d) { return v_f16_lo(d >> 16); }

#endif
