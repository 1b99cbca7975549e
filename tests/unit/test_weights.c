/* test_weights.c: binding checkpoints, shards, dummy weights. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "model/config.h"
#include "model/weights.h"
#include "model_data.h"

static void opens_a_real_model(const char *name, enum dtype dtype) {
    const char *dir = model_data(name);
    if (!dir) skip();
    struct err e = {0};
    struct config c;
    struct checkpoint *ck;
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

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(stories_float32), cmocka_unit_test(stories_bfloat16)};
    return cmocka_run_group_tests_name("weights", tests, NULL, NULL);
}
