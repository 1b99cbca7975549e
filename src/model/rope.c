/* rope.c: inverse frequencies for the rotary embedding. Pure functions, run once at load.
 * Source: transformers' modeling_rope_utils; float32 where it computes in float32, double where it uses Python's
 * numbers, so that angles agree to the last bits. Refuses nothing: rope_fields.c has checked the numbers. */
#include "base/mem.h"
#include "model/config.h"

#include <math.h>
#include <stdlib.h>

static float power(const struct config *c, int32_t i) {
    return powf((float)c->rope.theta, (float)(2 * i) / (float)c->head_dim);
}

/* Wavelengths longer than the original context are stretched by the factor, short ones kept, those between mixed. */
static float llama3(const struct rope_config *r, float inv) {
    const float old = (float)r->original_max, low = (float)r->low_freq_factor, high = (float)r->high_freq_factor;
    const float factor = (float)r->factor;
    float wavelen = (float)(2 * M_PI) / inv;
    if (wavelen > (float)(r->original_max / r->low_freq_factor)) return inv / factor;
    if (wavelen < (float)(r->original_max / r->high_freq_factor)) return inv;
    float smooth = (old / wavelen - low) / (high - low);
    return (1 - smooth) * inv / factor + smooth * inv;
}

static double yarn_mscale(double scale, double m) { return scale <= 1 ? 1.0 : 0.1 * m * log(scale) + 1.0; }

static double yarn_attention(const struct rope_config *r) {
    if (r->attention_factor > 0) return r->attention_factor;
    if (r->mscale > 0 && r->mscale_all_dim > 0)
        return yarn_mscale(r->factor, r->mscale) / yarn_mscale(r->factor, r->mscale_all_dim);
    return yarn_mscale(r->factor, 1);
}

/* The dimension whose wave turns `rotations` times within the original context. */
static double yarn_dim(const struct config *c, double rotations) {
    return c->head_dim * log(c->rope.original_max / (rotations * 2 * M_PI)) / (2 * log(c->rope.theta));
}

static void yarn(float *inv, const struct config *c) {
    double low = yarn_dim(c, c->rope.beta_fast), high = yarn_dim(c, c->rope.beta_slow);
    if (c->rope.truncate) {
        low = floor(low);
        high = ceil(high);
    }
    low = low > 0 ? low : 0;
    high = high < c->head_dim - 1 ? high : c->head_dim - 1;
    if ((float)(high - low) == 0) high = low + 0.001; /* prevents a division by zero */
    for (int32_t i = 0; i < c->head_dim / 2; i++) {
        float pos = power(c, i), ramp = ((float)i - (float)low) / (float)(high - low);
        ramp = ramp < 0 ? 0 : ramp > 1 ? 1 : ramp;
        float keep = 1 - ramp;
        inv[i] = 1.0f / ((float)c->rope.factor * pos) * (1 - keep) + 1.0f / pos * keep;
    }
}

void rope_init(struct rope *r, const struct config *c) {
    const struct rope_config *rc = &c->rope;
    float *inv = mem_array((size_t)c->head_dim / 2, sizeof *inv);
    for (int32_t i = 0; i < c->head_dim / 2; i++) {
        inv[i] = 1.0f / power(c, i);
        if (rc->kind == ROPE_LINEAR) inv[i] /= (float)rc->factor;
        if (rc->kind == ROPE_LLAMA3) inv[i] = llama3(rc, inv[i]);
    }
    if (rc->kind == ROPE_YARN) yarn(inv, c);
    *r = (struct rope){.dim = c->head_dim, .inv_freq = inv, .scale = 1};
    if (rc->kind == ROPE_YARN) r->scale = (float)yarn_attention(rc);
    if (rc->kind == ROPE_DYNAMIC) {
        r->dynamic_max = rc->original_max;
        r->dynamic_theta = (float)rc->theta;
        r->dynamic_factor = (float)rc->factor;
    }
}

void rope_release(struct rope *r) {
    free((void *)r->inv_freq);
    *r = (struct rope){0};
}
