/* half.h: bf16 and f16 to and from float32, one number at a time; rounding is to nearest even, NaN stays NaN. */
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

/* Element i of an array of any dtype. */
static inline float load_any(const void *p, enum dtype t, size_t i) {
    if (t == DT_F32) return f32_of_bits(((const uint32_t *)p)[i]);
    uint16_t h = ((const uint16_t *)p)[i];
    return t == DT_BF16 ? bf16_to_f32(h) : f16_to_f32(h);
}

static inline void store_any(void *p, enum dtype t, size_t i, float f) {
    if (t == DT_F32)
        ((float *)p)[i] = f;
    else
        ((uint16_t *)p)[i] = t == DT_BF16 ? f32_to_bf16(f) : f32_to_f16(f);
}

static inline const void *elem_at(const void *p, enum dtype t, int64_t i) {
    return (const char *)p + i * (int64_t)dtype_size(t);
}

#endif
