/* test_generate.c: JSON lines and a bare prompt, over a scheduler that echoes. */
#include "serve_rig.h"

#include "cli/generate.h"

static struct rig *rig;

static int open_rig(void **state) {
    (void)state;
    rig = rig_open(&(struct serve_args){0});
    return 0;
}

static int close_rig(void **state) {
    (void)state;
    rig_close(rig);
    return 0;
}

/* What comes out for what goes in; free() it. */
static char *run(const char *in, const char *prompt, bool raw, int code) {
    char *out = NULL;
    size_t n = 0;
    struct err e;
    FILE *from = fmemopen((void *)(in ? in : "x"), in ? strlen(in) : 1, "r"), *to = open_memstream(&out, &n);
    int got = generate_run(&(struct generate_args){.front = &rig->front, .in = from, .out = to, .prompt = prompt, .raw = raw},
                           &e);
    fclose(from);
    fclose(to);
    assert_int_equal(got, code);
    return out;
}

static void lines_come_back_in_order(void **state) {
    (void)state;
    struct buf in;
    buf_init(&in, 1 << 20);
    for (int i = 0; i < 200; i++)
        buf_addf(&in, "{\"prompt\":\"line %d, \",\"max_tokens\":%d}\n%s", i, 40 - i % 40, i % 3 ? "" : "\n");
    char *out = run(in.data, NULL, false, 0), *p = out;
    for (int i = 0; i < 200; i++) {
        char want[80];
        json_error_t e;
        json_t *j = json_loads(p, JSON_DISABLE_EOF_CHECK, &e);
        const char *text = json_string_value(json_object_get(j, "text"));
        snprintf(want, sizeof want, "line %d, line %d, line %d, line %d, line %d, ", i, i, i, i, i);
        assert_int_equal(strlen(text), 40 - i % 40);
        assert_memory_equal(text, want, strlen(text));
        json_decref(j);
        p = strchr(p, '\n') + 1;
    }
    assert_int_equal(*p, 0);
    free(out);
    buf_release(&in);
}

static void bad_lines_have_their_place(void **state) {
    (void)state;
    char *out = run("{\"prompt\":\"ab\",\"max_tokens\":2,\"logprobs\":1}\nnot json\n{\"prompt\":\"x\",\"temperature\":9}\n"
                    "{\"prompt\":\"cd\",\"stop\":\"dc\"}", NULL, false, 2);
    char *line = strtok(out, "\n");
    assert_non_null(strstr(line, "{\"text\":\"ab\",\"token_ids\":[97,98],\"finish_reason\":\"length\""));
    assert_non_null(strstr(line, "\"logprobs\":[{\"token_id\":97,\"logprob\":-0.5,\"top\":[{\"id\":97,\"logprob\":-0.5}]}"));
    assert_non_null(strstr(strtok(NULL, "\n"), "{\"error\":{\"message\":\"the body is not valid JSON"));
    assert_non_null(strstr(strtok(NULL, "\n"), "\"param\":\"temperature\""));
    assert_non_null(strstr(strtok(NULL, "\n"), "{\"text\":\"c\",\"token_ids\":[99,100,99],\"finish_reason\":\"stop\""));
    assert_null(strtok(NULL, "\n"));
    free(out);
    out = run("", NULL, false, 0);
    assert_string_equal(out, "");
    free(out);
}

static void a_prompt_is_answered_in_text(void **state) {
    (void)state;
    char *out = run(NULL, "hi \x04", true, 0);
    assert_string_equal(out, "hi \n");
    free(out);
    out = run(NULL, "\xff", true, 2);
    assert_string_equal(out, "");
    free(out);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(lines_come_back_in_order),
        cmocka_unit_test(bad_lines_have_their_place),
        cmocka_unit_test(a_prompt_is_answered_in_text),
    };
    return cmocka_run_group_tests_name("generate", tests, open_rig, close_rig);
}
