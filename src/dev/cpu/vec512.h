/* vec512.h: what the two AVX-512 makers of kern.h share. */
#ifndef MINISGL_DEV_CPU_VEC512_H
#define MINISGL_DEV_CPU_VEC512_H
#include "dev/cpu/vec.h"

#include <immintrin.h>

#define V_FMA(a, b, c) ((vf)_mm512_fmadd_ps((__m512)(a), (__m512)(b), (__m512)(c)))
#define V_MAX(a, b) ((vf)_mm512_max_ps((__m512)(a), (__m512)(b)))
#define V_ANY(m) (_mm512_movepi32_mask((__m512i)(m)) != 0)

/* Rows r, r + 4, r + 8 and r + 12 share a register, a quarter each; then two rounds of unpacking. */
static inline __m512i quad_rows(const char *const *row, int64_t at) {
    __m512i a = _mm512_castsi128_si512(_mm_loadu_si128((const __m128i *)(const void *)(row[0] + at)));
    a = _mm512_inserti32x4(a, _mm_loadu_si128((const __m128i *)(const void *)(row[4] + at)), 1);
    a = _mm512_inserti32x4(a, _mm_loadu_si128((const __m128i *)(const void *)(row[8] + at)), 2);
    return _mm512_inserti32x4(a, _mm_loadu_si128((const __m128i *)(const void *)(row[12] + at)), 3);
}
static inline void quad(const char *const *row, int64_t at, vu o[4]) {
    __m512i a0 = quad_rows(row, at), a1 = quad_rows(row + 1, at), a2 = quad_rows(row + 2, at), a3 = quad_rows(row + 3, at);
    __m512i t0 = _mm512_unpacklo_epi32(a0, a1), t1 = _mm512_unpackhi_epi32(a0, a1);
    __m512i t2 = _mm512_unpacklo_epi32(a2, a3), t3 = _mm512_unpackhi_epi32(a2, a3);
    o[0] = (vu)_mm512_unpacklo_epi64(t0, t2);
    o[1] = (vu)_mm512_unpackhi_epi64(t0, t2);
    o[2] = (vu)_mm512_unpacklo_epi64(t1, t3);
    o[3] = (vu)_mm512_unpackhi_epi64(t1, t3);
}

static inline vf v_f16_load(const void *p) { return (vf)_mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)p)); }
static inline void v_f16_store(void *p, vf a) {
    _mm256_storeu_si256((__m256i *)p, _mm512_cvtps_ph((__m512)a, _MM_FROUND_TO_NEAREST_INT));
}
static inline vf v_f16_lo(vu d) { return (vf)_mm512_cvtph_ps(_mm512_cvtepi32_epi16((__m512i)d)); }
static inline vf v_f16_hi(vu d) { return v_f16_lo(d >> 16); }

#endif
