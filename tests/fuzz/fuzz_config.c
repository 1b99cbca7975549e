/* fuzz_config.c: any text as config.json, and what follows a NUL byte as generation_config.json. An accepted config has
 * sizes that the rest of the program may multiply without a thought, and finite rotary frequencies. */
#include "model/config.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static void check(const struct config *c) {
    struct rope r;
    if (c->n_layers < 1 || c->n_layers > 1000 || c->hidden < 1 || c->n_heads < 1 || c->n_kv_heads < 1 ||
        c->head_dim < 2 || c->ffn < 1 || c->vocab < 1 || c->max_position < 1 || c->n_heads % c->n_kv_heads ||
        c->head_dim % 2)
        abort();
    if (c->n_eos < 0 || c->n_eos > CONFIG_EOS_MAX || c->bos >= c->vocab) abort();
    for (int32_t i = 0; i < c->n_eos; i++)
        if (c->eos[i] < 0 || c->eos[i] >= c->vocab) abort();
    for (int32_t i = 0; i < c->n_layers; i++)
        if (c->window[i] < 0 || (c->layer_moe[i] && (c->n_experts < c->experts_per_token || c->moe_ffn < 1))) abort();
    rope_init(&r, c);
    if (!isfinite(r.scale)) abort();
    for (int32_t i = 0; i < r.dim / 2; i++)
        if (!isfinite(r.inv_freq[i]) || r.inv_freq[i] < 0) abort();
    rope_release(&r);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n) {
    const char *text = (const char *)data, *nul = memchr(text, 0, n);
    size_t first = nul ? (size_t)(nul - text) : n;
    struct config c;
    struct err e = {0};
    if (config_parse(&c, text, first, nul ? nul + 1 : NULL, nul ? n - first - 1 : 0, &e)) {
        if (e.kind != ERR_INPUT || !*e.text) abort();
        return 0;
    }
    check(&c);
    config_release(&c);
    return 0;
}
