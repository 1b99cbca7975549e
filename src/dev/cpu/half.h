/* half.h: bf16, f16 and fp8 (e4m3) to and from float32, one number at a time; rounding is to nearest even, NaN stays NaN. */
#ifndef MINISGL_DEV_CPU_HALF_H
#define MINISGL_DEV_CPU_HALF_H
#include "dev/dev.h"

#include <string.h>

static inline float f32_of_bits(uint32_t u) {
    float f;
    memcpy(&f, &u, 4);
    return f;
}

static inline uint32_t bits_of_f32(float f) {
    uint32_t u;
    memcpy(&u, &f, 4);
    return u;
}

static inline float bf16_to_f32(uint16_t h) { return f32_of_bits((uint32_t)h << 16); }

static inline uint16_t f32_to_bf16(float f) {
    uint32_t u = bits_of_f32(f);
    if ((u & 0x7fffffff) > 0x7f800000) return (uint16_t)(u >> 16 | 0x40);
    return (uint16_t)((u + 0x7fff + (u >> 16 & 1)) >> 16);
}

static inline float f16_to_f32(uint16_t h) {
    uint32_t sign = (uint32_t)(h & 0x8000) << 16, exp = h >> 10 & 31, man = h & 1023;
    if (exp == 31) return f32_of_bits(sign | 0x7f800000 | man << 13);
    if (exp) return f32_of_bits(sign | (exp + 112) << 23 | man << 13);
    return f32_of_bits(sign | bits_of_f32((float)man * 0x1p-24f));
}

static inline uint16_t f32_to_f16(float f) {
    uint32_t u = bits_of_f32(f), sign = u >> 16 & 0x8000;
    u &= 0x7fffffff;
    if (u > 0x7f800000) return (uint16_t)(sign | 0x7e00);
    if (u >= 0x477ff000) return (uint16_t)(sign | 0x7c00); /* 65520 and above round to infinity */
    if (u < 0x38800000) {                                  /* subnormal: the float adder rounds at 2^-24 */
        float r = f32_of_bits(u) + 0.5f;
        return (uint16_t)(sign | (bits_of_f32(r) - bits_of_f32(0.5f)));
    }
    return (uint16_t)(sign | (u + 0xfff + (u >> 13 & 1) - 0x38000000) >> 13);
}

/* The code 0x7f is NaN; there is no infinity. */
static inline float e4m3_to_f32(uint8_t h) {
    uint32_t sign = (uint32_t)(h & 0x80) << 24, exp = h >> 3 & 15, man = h & 7;
    if ((h & 0x7f) == 0x7f) return f32_of_bits(sign | 0x7fc00000);
    if (exp) return f32_of_bits(sign | (exp + 120) << 23 | man << 20);
    return f32_of_bits(sign | bits_of_f32((float)man * 0x1p-9f));
}

/* Saturates: what is too large, infinity too, becomes 448. */
static inline uint8_t f32_to_e4m3(float f) {
    uint32_t u = bits_of_f32(f), sign = u >> 24 & 0x80;
    u &= 0x7fffffff;
    if (u > 0x7f800000) return (uint8_t)(sign | 0x7f);
    if (u >= 0x43e00000) return (uint8_t)(sign | 0x7e); /* 448 */
    if (u < 0x3c800000) {                               /* subnormal: the float adder rounds at 2^-9 */
        float r = f32_of_bits(u) + 0x1p14f;
        return (uint8_t)(sign | (bits_of_f32(r) - bits_of_f32(0x1p14f)));
    }
    return (uint8_t)(sign | (u + 0x7ffff + (u >> 20 & 1) - 0x3c000000) >> 20);
}

/* Element i of an array of any dtype. */
static inline float load_any(const void *p, enum dtype t, size_t i) {
    if (t == DT_F32) return f32_of_bits(((const uint32_t *)p)[i]);
    if (t == DT_FP8_E4M3) return e4m3_to_f32(((const uint8_t *)p)[i]);
    uint16_t h = ((const uint16_t *)p)[i];
    return t == DT_BF16 ? bf16_to_f32(h) : f16_to_f32(h);
}

static inline void store_any(void *p, enum dtype t, size_t i, float f) {
    if (t == DT_F32)
        ((float *)p)[i] = f;
    else if (t == DT_FP8_E4M3)
        ((uint8_t *)p)[i] = f32_to_e4m3(f);
    else
        ((uint16_t *)p)[i] = t == DT_BF16 ? f32_to_bf16(f) : f32_to_f16(f);
}

static inline const void *elem_at(const void *p, enum dtype t, int64_t i) {
    return (const char *)p + i * (int64_t)dtype_size(t);
}

#endif
