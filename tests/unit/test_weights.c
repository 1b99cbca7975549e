/* test_weights.c: binding checkpoints, shards, dummy weights. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "base/file.h"
#include "hub/find.h"
#include "model/config.h"
#include "model/weights.h"
#include "model_data.h"

#include <dirent.h>
#include <math.h>

static void opens_a_real_model(const char *name, enum dtype dtype) {
    const char *dir = model_data(name);
    if (!dir) skip();
    struct err e = {0};
    struct config c;
    struct checkpoint *ck = NULL;
    struct weights w;
    if (config_open(&c, dir, &e) || checkpoint_open(&ck, dir, &e)) fail_msg("%s", e.text);
    assert_string_equal(c.arch->name, "LlamaForCausalLM");
    assert_int_equal(c.n_layers, 5);
    assert_int_equal(c.n_kv_heads, 4);
    assert_int_equal(c.head_dim, 8);
    assert_int_equal(c.dtype, dtype);
    if (weights_bind(&w, &c, ck, (struct shard){0, 1}, &e)) fail_msg("%s", e.text);
    assert_int_equal(w.bytes, checkpoint_bytes(ck));
    assert_ptr_equal(w.lm_head.data, w.embed.data);
    assert_int_equal(w.layers[4].down.n, 64);
    assert_int_equal(w.layers[4].down.k, 172);
    assert_int_equal(w.layers[4].down.dtype, dtype);
    weights_release(&w);
    checkpoint_close(ck);
    config_release(&c);
}

static void stories_float32(void **state) {
    (void)state;
    opens_a_real_model("stories260k", DT_F32);
}

static void stories_bfloat16(void **state) {
    (void)state;
    opens_a_real_model("stories260k/bf16", DT_BF16);
}


/* ---- every fixture binds, and its shards tile the whole ---- */

struct model {
    struct config c;
    struct checkpoint *ck;
};

static void open_fixture(struct model *m, const char *name) {
    struct err e = {0};
    char *dir = path_join("tests/model/fixtures", name);
    if (config_open(&m->c, dir, &e) || checkpoint_open(&m->ck, dir, &e)) fail_msg("%s: %s", name, e.text);
    free(dir);
}

static void close_fixture(struct model *m) {
    checkpoint_close(m->ck);
    config_release(&m->c);
}

static float get(const struct view *v, int32_t row, int32_t col) {
    size_t i = (size_t)row * (size_t)v->ld + (size_t)col;
    if (v->dtype == DT_F32) return ((const float *)v->data)[i];
    uint16_t h = ((const uint16_t *)v->data)[i];
    if (v->dtype == DT_BF16) {
        uint32_t u = (uint32_t)h << 16;
        float x;
        memcpy(&x, &u, 4);
        return x;
    }
    int e = h >> 10 & 31, f = h & 1023;
    float x = e ? ldexpf(1024 + (float)f, e - 25) : ldexpf((float)f, -24);
    return h >> 15 ? -x : x;
}

/* part's rows and columns are those of whole from (row, col) on. */
static void is_part(const struct view *part, const struct view *whole, int32_t row, int32_t col, int32_t n, int32_t k) {
    assert_int_equal(part->n, n);
    assert_int_equal(part->k, k);
    assert_true(row + n <= whole->n && col + k <= whole->k);
    for (int32_t i = 0; i < n; i++)
        for (int32_t j = 0; j < k; j++)
            if (get(part, i, j) != get(whole, row + i, col + j)) fail_msg("row %d, column %d differs", i, j);
}

static void is_shard(const struct weights *p, const struct weights *w, const struct config *c, int32_t r, int32_t n) {
    const int32_t E = c->hidden, D = c->head_dim, q = c->n_heads * D / n;
    const int32_t kv = c->n_kv_heads >= n ? c->n_kv_heads / n * D : D;
    const int32_t kv_at = c->n_kv_heads >= n ? r * kv : r / (n / c->n_kv_heads) * D;
    const int32_t width = (c->vocab + 7) / 8 * (8 / n), share = r < n - 1 ? width : c->vocab - width * (n - 1);
    is_part(&p->embed, &w->embed, r * width, 0, share, E);
    is_part(&p->lm_head, &w->lm_head, r * width, 0, share, E);
    is_part(&p->norm, &w->norm, 0, 0, 1, E);
    for (int32_t i = 0; i < c->n_layers; i++) {
        const struct layer_weights *a = &p->layers[i], *b = &w->layers[i];
        is_part(&a->input_norm, &b->input_norm, 0, 0, 1, E);
        is_part(&a->post_norm, &b->post_norm, 0, 0, 1, E);
        is_part(&a->q, &b->q, r * q, 0, q, E);
        is_part(&a->k, &b->k, kv_at, 0, kv, E);
        is_part(&a->v, &b->v, kv_at, 0, kv, E);
        is_part(&a->o, &b->o, 0, r * q, E, q);
        if (c->qkv_bias) is_part(&a->q_bias, &b->q_bias, 0, r * q, 1, q);
        if (c->qkv_bias) is_part(&a->k_bias, &b->k_bias, 0, kv_at, 1, kv);
        if (c->qkv_bias) is_part(&a->v_bias, &b->v_bias, 0, kv_at, 1, kv);
        if (c->qk_norm) is_part(&a->q_norm, &b->q_norm, 0, 0, 1, D);
        if (c->qk_norm) is_part(&a->k_norm, &b->k_norm, 0, 0, 1, D);
        if (c->o_bias) is_part(&a->o_bias, &b->o_bias, 0, 0, 1, E);
        if (c->mlp_bias && !a->experts) is_part(&a->down_bias, &b->down_bias, 0, 0, 1, E);
        assert_true(!a->experts == !c->layer_moe[i]);
        if (a->experts) is_part(&a->router, &b->router, 0, 0, c->n_experts, E);
        int32_t F = (a->experts ? c->moe_ffn : c->ffn) / n;
        for (int32_t x = 0; x < (a->experts ? c->n_experts : 1); x++) {
            const struct view *sa[3] = {&a->gate, &a->up, &a->down}, *sb[3] = {&b->gate, &b->up, &b->down};
            for (int k = 0; k < 3 && a->experts; k++) sa[k] = &a->experts[3 * x + k], sb[k] = &b->experts[3 * x + k];
            is_part(sa[0], sb[0], r * F, 0, F, E);
            is_part(sa[1], sb[1], r * F, 0, F, E);
            is_part(sa[2], sb[2], 0, r * F, E, F);
        }
        if (c->mlp_bias && !a->experts) is_part(&a->gate_bias, &b->gate_bias, 0, r * F, 1, F);
    }
}

/* The head counts of the fixtures allow 2 and 4 ranks, and 4 with 1 or 2 KV heads copies them. */
static void fixtures_bind_whole_and_in_shards(void **state) {
    (void)state;
    DIR *d = opendir("tests/model/fixtures");
    assert_non_null(d);
    int seen = 0;
    for (struct dirent *x; (x = readdir(d));) {
        struct model m;
        struct weights whole, part;
        struct err e = {0};
        if (x->d_name[0] == '.' || strchr(x->d_name, '.')) continue;
        open_fixture(&m, x->d_name);
        if (weights_bind(&whole, &m.c, m.ck, (struct shard){0, 1}, &e)) fail_msg("%s: %s", x->d_name, e.text);
        assert_int_equal(whole.bytes, checkpoint_bytes(m.ck));
        for (int32_t n = 2; n <= 4; n *= 2)
            for (int32_t r = 0; r < n; r++) {
                if (weights_bind(&part, &m.c, m.ck, (struct shard){r, n}, &e)) fail_msg("%s: %s", x->d_name, e.text);
                is_shard(&part, &whole, &m.c, r, n);
                weights_release(&part);
            }
        weights_release(&whole);
        close_fixture(&m);
        seen++;
    }
    closedir(d);
    assert_true(seen >= 20);
}

static void ranks_that_do_not_divide_are_refused(void **state) {
    (void)state;
    struct model m;
    struct weights w;
    struct err e = {0};
    open_fixture(&m, "llama");
    static const struct {
        struct shard s;
        const char *says;
    } bad[] = {{{0, 3}, "1, 2, 4 or 8"}, {{0, 16}, "1, 2, 4 or 8"}, {{0, 8}, "attention heads (4)"}, {{2, 2}, "no rank 2 of 2"}, {{-1, 2}, "no rank"},
               {{0, 0}, "of 0"}};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        assert_int_equal(weights_bind(&w, &m.c, m.ck, bad[i].s, &e), -1);
        if (!strstr(e.text, bad[i].says)) fail_msg("%s", e.text);
        assert_int_equal(weights_dummy(&w, &m.c, bad[i].s, 0, 1, &e), -1);
    }
    struct config c = m.c;
    c.n_heads = 6, c.n_kv_heads = 3;
    assert_int_equal(weights_dummy(&w, &c, (struct shard){0, 2}, 0, 1, &e), -1);
    assert_non_null(strstr(e.text, "3 KV heads"));
    c = m.c, c.ffn = 57;
    assert_int_equal(weights_dummy(&w, &c, (struct shard){0, 2}, 0, 1, &e), -1);
    assert_non_null(strstr(e.text, "ffn width (57)"));
    c = m.c, c.vocab = 9; /* shares of 4, 4, 1 and nothing */
    assert_int_equal(weights_dummy(&w, &c, (struct shard){0, 4}, 0, 1, &e), -1);
    assert_non_null(strstr(e.text, "vocabulary of 9"));
    close_fixture(&m);
}

/* ---- what does not fit the config ---- */

static void binding_fails(const struct config *c, const struct checkpoint *ck, const char *says) {
    struct weights w;
    struct err e = {0};
    if (!weights_bind(&w, c, ck, (struct shard){0, 1}, &e)) fail_msg("bound, instead of '%s'", says);
    if (!strstr(e.text, says)) fail_msg("refused with '%s', not '%s'", e.text, says);
}

static void each_mismatch_is_named(void **state) {
    (void)state;
    struct model m, q;
    open_fixture(&m, "llama");
    open_fixture(&q, "qwen3");
    struct config c = m.c;
    c.hidden = 48;
    binding_fails(&c, m.ck, "tensor model.embed_tokens.weight in model.safetensors must have the shape [96, 48] by config.json, found [96, 32]");
    c = m.c, c.vocab = 95;
    binding_fails(&c, m.ck, "model.embed_tokens.weight");
    c = m.c, c.n_kv_heads = 4;
    binding_fails(&c, m.ck, "model.layers.0.self_attn.k_proj.weight in model.safetensors must have the shape [32, 32]");
    c = m.c, c.ffn = 64;
    binding_fails(&c, m.ck, "model.layers.0.mlp.gate_proj.weight");
    c = m.c, c.tied = true;
    struct weights w;
    struct err e = {0};
    assert_int_equal(weights_bind(&w, &c, m.ck, (struct shard){0, 1}, &e), 0); /* a copy of a tied head may be there */
    assert_ptr_equal(w.lm_head.data, w.embed.data);
    weights_release(&w);
    c = m.c, c.qkv_bias = true;
    binding_fails(&c, m.ck, "tensor model.layers.0.self_attn.q_proj.bias is missing");
    c = m.c, c.n_layers = 1;
    binding_fails(&c, m.ck, "tensor model.layers.1.input_layernorm.weight in model.safetensors belongs nowhere");
    c = m.c, c.qk_norm = true;
    binding_fails(&c, m.ck, "q_norm.weight is missing");
    c = q.c, c.qk_norm = false;
    binding_fails(&c, q.ck, "belongs nowhere in a Qwen3ForCausalLM");
    close_fixture(&q);
    open_fixture(&q, "llama-tied");
    c = q.c, c.tied = false;
    binding_fails(&c, q.ck, "lm_head.weight is missing from the checkpoint (config.json's tie_word_embeddings is not true)");
    close_fixture(&q);
    close_fixture(&m);
}

/* A tiny model written by hand: one layer, with the dtype of one tensor and the place of the data to choose. */
static void write_tiny(const char *dir, const char *down_dtype, size_t down_size, const char *extra, size_t pad) {
    static const struct {
        const char *name, *shape;
        size_t n;
    } t[] = {{"model.embed_tokens.weight", "[2,2]", 4}, {"model.layers.0.input_layernorm.weight", "[2]", 2},
             {"model.layers.0.self_attn.q_proj.weight", "[2,2]", 4}, {"model.layers.0.self_attn.k_proj.weight", "[2,2]", 4},
             {"model.layers.0.self_attn.v_proj.weight", "[2,2]", 4}, {"model.layers.0.self_attn.o_proj.weight", "[2,2]", 4},
             {"model.layers.0.post_attention_layernorm.weight", "[2]", 2}, {"model.layers.0.mlp.gate_proj.weight", "[2,2]", 4},
             {"model.layers.0.mlp.up_proj.weight", "[2,2]", 4}, {"model.norm.weight", "[2]", 2}, {"lm_head.weight", "[2,2]", 4},
             {"model.layers.0.mlp.down_proj.weight", "[2,2]", 4}};
    char json[4000], bytes[5000];
    size_t at = 0, n = 0, last = sizeof t / sizeof *t - 1;
    at += (size_t)snprintf(json, sizeof json, "{%s", extra);
    for (size_t i = 0; i <= last; i++) {
        size_t size = i == last ? down_size : 4;
        at += (size_t)snprintf(json + at, sizeof json - at, "%s\"%s\":{\"dtype\":\"%s\",\"shape\":%s,\"data_offsets\":[%zu,%zu]}",
                               i ? "," : "", t[i].name, i == last ? down_dtype : "F32", t[i].shape, n, n + t[i].n * size);
        n += t[i].n * size;
    }
    json[at++] = '}';
    while (at % 8 != pad) json[at++] = ' ';
    for (int i = 0; i < 8; i++) bytes[i] = (char)((uint64_t)at >> 8 * i);
    memcpy(bytes + 8, json, at);
    for (size_t i = 0; i < n; i += 4) memcpy(bytes + 8 + at + i, &(float){(float)i / 4}, 4);
    model_file_write(dir, "model.safetensors", bytes, 8 + at + n);
    static const char config[] = "{\"architectures\":[\"LlamaForCausalLM\"],\"vocab_size\":2,\"hidden_size\":2,\"intermediate_size\":2,"
                                 "\"num_hidden_layers\":1,\"num_attention_heads\":1}";
    model_file_write(dir, "config.json", config, sizeof config - 1);
}

static void dtypes_and_alignment(void **state) {
    (void)state;
    char *dir = model_dir_make();
    struct config c;
    struct checkpoint *ck = NULL;
    struct weights w;
    struct err e = {0};
    write_tiny(dir, "F32", 4, "", 0);
    assert_int_equal(config_open(&c, dir, &e), 0);
    for (size_t pad = 0; pad < 4; pad++) { /* old writers did not align the data */
        write_tiny(dir, "BF16", 2, "", pad);
        if (checkpoint_open(&ck, dir, &e) || weights_bind(&w, &c, ck, (struct shard){0, 1}, &e)) fail_msg("%s", e.text);
        assert_int_equal(w.layers[0].down.dtype, DT_BF16);
        assert_int_equal(w.lm_head.dtype, DT_F32);
        assert_int_equal((uintptr_t)w.lm_head.data % 4, 0);
        assert_true(get(&w.embed, 1, 1) == 3 && get(&w.layers[0].input_norm, 0, 1) == 5 && get(&w.layers[0].o, 1, 0) == 20);
        weights_release(&w);
        checkpoint_close(ck);
    }
    static const struct {
        const char *dtype;
        size_t size;
    } bad[] = {{"I8", 1}, {"F64", 8}, {"I32", 4}, {"F8_E4M3", 1}};
    for (size_t i = 0; i < 4; i++) {
        write_tiny(dir, bad[i].dtype, bad[i].size, "", 0);
        if (checkpoint_open(&ck, dir, &e)) fail_msg("%s", e.text);
        binding_fails(&c, ck, "tensor model.layers.0.mlp.down_proj.weight in model.safetensors has the dtype");
        checkpoint_close(ck);
    }
    write_tiny(dir, "F32", 4, "\"model.layers.0.self_attn.rotary_emb.inv_freq\":{\"dtype\":\"F32\",\"shape\":[0],\"data_offsets\":[0,0]},", 0);
    if (checkpoint_open(&ck, dir, &e) || weights_bind(&w, &c, ck, (struct shard){0, 1}, &e)) fail_msg("%s", e.text);
    weights_release(&w);
    checkpoint_close(ck);
    write_tiny(dir, "F32", 4, "\"model.layers.0.extra\":{\"dtype\":\"F32\",\"shape\":[0],\"data_offsets\":[0,0]},", 0);
    if (checkpoint_open(&ck, dir, &e)) fail_msg("%s", e.text);
    binding_fails(&c, ck, "tensor model.layers.0.extra in model.safetensors belongs nowhere");
    checkpoint_close(ck);
    config_release(&c);
    model_dir_remove(dir);
}

/* ---- dummy weights ---- */

static void dummy_weights_are_the_same_in_every_shard(void **state) {
    (void)state;
    static const char *const names[] = {"llama", "qwen2", "qwen3-f16-shards", "qwen3moe-sparse", "llama-mha-bias"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        struct model m;
        struct weights whole, part, other;
        struct err e = {0};
        open_fixture(&m, names[i]);
        assert_int_equal(weights_dummy(&whole, &m.c, (struct shard){0, 1}, 7, 2, &e), 0);
        assert_int_equal(whole.layers[0].q.dtype, m.c.dtype);
        for (int32_t n = 1; n <= 4; n *= 2)
            for (int32_t r = 0; r < n; r++) {
                assert_int_equal(weights_dummy(&part, &m.c, (struct shard){r, n}, 7, 1, &e), 0);
                is_shard(&part, &whole, &m.c, r, n);
                weights_release(&part);
            }
        assert_int_equal(weights_dummy(&other, &m.c, (struct shard){0, 1}, 8, 1, &e), 0);
        assert_true(get(&other.layers[0].q, 0, 0) != get(&whole.layers[0].q, 0, 0));
        assert_true(get(&whole.norm, 0, 3) == 1 && get(&whole.layers[0].input_norm, 0, 0) == 1);
        weights_release(&other);
        weights_release(&whole);
        close_fixture(&m);
    }
}

/* Mean 0, deviation 0.02, rows and tensors differ; eight ranks; a model of a well-known shape. */
static void dummy_weights_look_random(void **state) {
    (void)state;
    struct config c;
    struct weights w, eighth;
    struct err e = {0};
    if (config_open(&c, "models/Qwen/Qwen3-0.6B", &e)) fail_msg("%s", e.text);
    c.n_layers = 1;
    assert_int_equal(weights_dummy(&w, &c, (struct shard){0, 1}, 1, 2, &e), 0);
    const struct view *v = &w.layers[0].gate;
    double sum = 0, squares = 0;
    for (int32_t i = 0; i < v->n; i++)
        for (int32_t k = 0; k < v->k; k++) {
            double x = (double)get(v, i, k);
            sum += x, squares += x * x;
        }
    double n = (double)v->n * v->k;
    assert_true(fabs(sum / n) < 4e-4); /* of 65536 draws: five deviations */
    assert_true(fabs(sqrt(squares / n) - 0.02) < 2e-4);
    int same_row = 0, same_tensor = 0, same_element = 0;
    for (int32_t k = 0; k + 1 < v->k; k++) {
        same_element += get(v, 0, k) == get(v, 0, k + 1);
        same_row += get(v, 0, k) == get(v, 1, k);
        same_tensor += get(v, 0, k) == get(&w.layers[0].up, 0, k);
    }
    assert_true(same_element < 50 && same_row < 50 && same_tensor < 50);
    for (int32_t r = 0; r < 8; r += 7) {
        assert_int_equal(weights_dummy(&eighth, &c, (struct shard){r, 8}, 1, 1, &e), 0);
        is_shard(&eighth, &w, &c, r, 8);
        weights_release(&eighth);
    }
    weights_release(&w);
    config_release(&c);
}

static void written_dummies_are_the_ones_in_memory(void **state) {
    (void)state;
    static const struct {
        const char *name;
        size_t shard_bytes;
    } cases[] = {{"qwen3moe-sparse", 0}, {"llama", 20000}, {"qwen2", 1}, {"qwen3-f16-shards", 1 << 30}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char *tmp = model_dir_make(), *out = path_join(tmp, "out"), *from = path_join("tests/model/fixtures", cases[i].name);
        struct config c;
        struct checkpoint *ck = NULL;
        struct weights w, mem;
        struct err e = {0};
        model_file_write(tmp, "x", "", 0);
        assert_int_equal(dummy_write(from, tmp, 5, 0, &e), -1);
        assert_non_null(strstr(e.text, "is not empty"));
        if (dummy_write(from, out, 5, cases[i].shard_bytes, &e)) fail_msg("%s", e.text);
        if (config_open(&c, out, &e) || checkpoint_open(&ck, out, &e)) fail_msg("%s", e.text);
        if (weights_bind(&w, &c, ck, (struct shard){0, 1}, &e)) fail_msg("%s", e.text);
        assert_int_equal(weights_dummy(&mem, &c, (struct shard){0, 1}, 5, 1, &e), 0);
        is_shard(&w, &mem, &c, 0, 1);
        assert_true(checkpoint_find(ck, "model.norm.weight") != NULL);
        char *index = path_join(out, "model.safetensors.index.json");
        assert_int_equal(file_exists(index), cases[i].shard_bytes > 0 && cases[i].shard_bytes < 1 << 30);
        free(index);
        weights_release(&mem);
        weights_release(&w);
        checkpoint_close(ck);
        config_release(&c);
        assert_int_equal(dummy_write(from, out, 5, 0, &e), -1);
        model_dir_remove(tmp);
        free(out);
        free(from);
    }
}

static void count_progress(void *arg, size_t done, size_t all, const char *file) {
    size_t *last = arg;
    assert_non_null(file);
    assert_true(done > *last && done <= all);
    *last = done;
}

static void prefetch_reads_what_its_ranks_need(void **state) {
    (void)state;
    struct model m;
    size_t last = 0, all;
    open_fixture(&m, "qwen3-f16-shards");
    struct prefetch_args a = {.from = m.ck, .config = &m.c, .first = {0, 1}, .n_local = 1, .n_threads = 2, .progress = count_progress, .arg = &last};
    all = weights_prefetch(&a);
    assert_int_equal(last, checkpoint_bytes(m.ck));
    assert_int_equal(all, last);
    a.progress = NULL;
    a.first = (struct shard){2, 4};
    a.n_local = 2; /* the second half: of rows half, of columns all */
    size_t half = weights_prefetch(&a), down = 0, rest = 0;
    struct weights w;
    struct err e;
    assert_int_equal(weights_bind(&w, &m.c, m.ck, (struct shard){0, 1}, &e), 0);
    for (int32_t i = 0; i < m.c.n_layers; i++) {
        const struct layer_weights *l = &w.layers[i];
        down += 2 * ((size_t)l->o.n * (size_t)l->o.k + (size_t)l->down.n * (size_t)l->down.k);
        rest += 2 * (size_t)(l->input_norm.k + l->post_norm.k + l->q_norm.k + l->k_norm.k);
    }
    rest += 2 * (size_t)w.norm.k;
    assert_int_equal(half, (all - down - rest) / 2 + down + rest);
    weights_release(&w);
    close_fixture(&m);
}

static void models_are_found_by_name(void **state) {
    (void)state;
    struct err e = {0};
    const struct hub_settings s = {.hf_cache = "/nonexistent", .offline = true};
    char *dir = model_find("Qwen/Qwen3-0.6B", HUB_CONFIG, &s, NULL, &e);
    if (!dir) fail_msg("%s", e.text);
    char *config = path_join(dir, "config.json");
    assert_true(file_exists(config));
    free(config);
    free(dir);
    dir = model_find("tests/model/fixtures/llama", HUB_WEIGHTS, &s, NULL, &e);
    assert_string_equal(dir, "tests/model/fixtures/llama");
    free(dir);
    assert_null(model_find("Qwen/no-such-model", HUB_CONFIG, &s, NULL, &e));
    assert_non_null(strstr(e.text, "Qwen/no-such-model"));
    assert_non_null(strstr(e.text, "/nonexistent/models--Qwen--no-such-model"));
    assert_null(model_find("Qwen/Qwen3-0.6B", HUB_WEIGHTS, &s, NULL, &e)); /* only its shape is here */
    assert_non_null(strstr(e.text, "--dummy-weight"));
    assert_null(model_find("", HUB_CONFIG, &s, NULL, &e));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(stories_float32),
        cmocka_unit_test(stories_bfloat16),
        cmocka_unit_test(fixtures_bind_whole_and_in_shards),
        cmocka_unit_test(ranks_that_do_not_divide_are_refused),
        cmocka_unit_test(each_mismatch_is_named),
        cmocka_unit_test(dtypes_and_alignment),
        cmocka_unit_test(dummy_weights_are_the_same_in_every_shard),
        cmocka_unit_test(dummy_weights_look_random),
        cmocka_unit_test(written_dummies_are_the_ones_in_memory),
        cmocka_unit_test(prefetch_reads_what_its_ranks_need),
        cmocka_unit_test(models_are_found_by_name),
    };
    return cmocka_run_group_tests_name("weights", tests, NULL, NULL);
}
