/* Chat templates: every reference output, provenance, budgets, finding a model's template. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/mem.h"
#include "reference.h"
#include "text/template.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static const struct tm NOW = {
    .tm_year = 126, .tm_mday = 15, .tm_hour = 9, .tm_min = 30, .tm_wday = 4, .tm_yday = 14, .tm_isdst = -1};

/* ---- reference outputs ---- */

static void own_render(const char *path, json_t *context, struct jinja_out *out, struct err *e) {
    struct chat_template *t = chat_template_open(NULL, path, e);
    if (!t) fail_msg("%s", e->text);
    json_t *kwargs = json_copy(context), *gen = json_object_get(context, "add_generation_prompt");
    json_object_del(kwargs, "messages");
    json_object_del(kwargs, "tools");
    json_object_set_new(kwargs, "bos_token", json_string("<s>"));
    json_object_set_new(kwargs, "eos_token", json_string("</s>"));
    json_object_set_new(kwargs, "unk_token", json_string("<unk>"));
    json_object_set_new(kwargs, "pad_token", json_string("<pad>"));
    struct chat_args a = {.messages = json_object_get(context, "messages"),
                          .tools = json_object_get(context, "tools"),
                          .kwargs = kwargs,
                          .add_generation_prompt = gen ? json_is_true(gen) : true,
                          .now = &NOW};
    if (chat_template_render(t, &a, out, e) != 0) out->text.over = true;
    json_decref(kwargs);
    chat_template_free(t);
}

static int golden_line(const char *dir, json_t *contexts, const char *line) {
    char path[1200];
    struct err e;
    struct jinja_out out;
    json_t *j = json_loads(line, 0, NULL);
    const char *name = json_string_value(json_object_get(j, "template")),
               *want = json_string_value(json_object_get(j, "output"));
    const char *context = json_string_value(json_object_get(j, "context"));
    snprintf(path, sizeof path, "%s/%s.jinja", dir, name);
    jinja_out_init(&out);
    own_render(path, json_object_get(contexts, context), &out, &e);
    bool ok = want ? !out.text.over && strcmp(want, buf_str(&out.text)) == 0 : out.text.over;
    if (!ok)
        print_error("%s on %s: expected %s, found %s\n", name, context, want ? want : "an error",
                    out.text.over ? e.text : buf_str(&out.text));
    jinja_out_release(&out);
    json_decref(j);
    return ok;
}

static void test_golden(void **state) {
    (void)state;
    char *dir = reference("chat-templates"), cmd[1200], path[1200], *line = NULL;
    size_t cap = 0, n = 0, good = 0;
    if (!dir) skip();
    snprintf(path, sizeof path, "%s/contexts.json", dir);
    json_t *contexts = json_load_file(path, 0, NULL);
    snprintf(cmd, sizeof cmd, "xz -dc '%s/golden.jsonl.xz'", dir);
    FILE *f = popen(cmd, "r");
    for (; getline(&line, &cap, f) > 0; n++) good += (size_t)golden_line(dir, contexts, line);
    assert_int_equal(pclose(f), 0);
    assert_int_equal(n, 432);
    assert_int_equal(good, n);
    json_decref(contexts);
    free(line);
    free(dir);
}

/* ---- one template, one context ---- */

static enum jinja_fault render(const char *source, const char *vars, struct jinja_out *out, struct err *e) {
    const char *key;
    json_t *v, *j = json_loads(vars, JSON_ALLOW_NUL, NULL);
    static const char *const words[] = {"user", NULL};
    struct jinja_var list[16];
    struct jinja_args a = {.vars = list, .words = words, .now = &NOW};
    json_object_foreach(j, key, v) list[a.nvars++] = (struct jinja_var){key, v, strcmp(key, "bos_token") == 0};
    struct jinja *t = jinja_compile(source, strlen(source), e);
    jinja_out_release(out);
    jinja_out_init(out);
    if (t)
        jinja_render(t, &a, out, e);
    else
        out->fault = JINJA_SYNTAX;
    jinja_free(t);
    json_decref(j);
    return out->fault;
}

static void expect(const char *source, const char *vars, const char *want) {
    struct jinja_out out;
    struct err e = {0};
    jinja_out_init(&out);
    if (render(source, vars, &out, &e) != JINJA_OK) fail_msg("%s: %s", source, e.text);
    assert_string_equal(buf_str(&out.text), want);
    jinja_out_release(&out);
}

static void expect_fault(const char *source, const char *vars, enum jinja_fault fault) {
    struct jinja_out out;
    struct err e = {0};
    jinja_out_init(&out);
    enum jinja_fault got = render(source, vars, &out, &e);
    if (got != fault) fail_msg("%.200s: expected fault %d, found %d: %s", source, fault, got, e.text);
    assert_int_equal(e.kind, ERR_INPUT);
    jinja_out_release(&out);
}

static void test_language(void **state) {
    (void)state;
    expect("{{ 7 // -2 }} {{ 7 % -2 }} {{ 2 ** -1 }} {{ 1e16 }} {{ 0.1 + 0.2 }}", "{}",
           "-4 -1 0.5 1e+16 0.30000000000000004");
    expect("{% for a, b in d.items() %}{{ loop.index }}{{ a }}{{ b }}{{ ',' if not loop.last }}{% endfor %}",
           "{\"d\":{\"x\":1,\"y\":[true,null]}}", "1x1,2y[True, None]");
    expect(
        "{% set ns = namespace(n=0) %}{% for i in range(4) if i % 2 %}{% set ns.n = ns.n + i %}{% endfor %}{{ ns.n }}",
        "{}", "4");
    expect("{% macro m(a, b=2) %}{{ a }}{{ b }}{{ varargs }}{{ kwargs }}{% endmacro %}{{ m(1, 3, 4, c=5) }}", "{}",
           "13(4,){'c': 5}");
    expect("{{ 'ß'|upper }}{{ 'ΑΣ'|lower }}{{ '日本語'[::-1] }}{{ '😀é'|length }}", "{}", "SSας語本日2");
    expect("{{ x|tojson }} {{ x|tojson(indent=1) }}", "{\"x\":{\"a\":[1,2.0,\"é<\"]}}",
           "{\"a\": [1, 2.0, \"é<\"]} {\n \"a\": [\n  1,\n  2.0,\n  \"é<\"\n ]\n}");
    expect("{{ strftime_now('%d %b %Y') }}", "{}", "15 Jan 2026");
    expect("{% for m in [] %}{% else %}none{% endfor %}{{ u }}{{ u|default('d') }}", "{}", "noned");
}

static void test_faults(void **state) {
    (void)state;
    expect_fault("{{ x", "{}", JINJA_SYNTAX);
    expect_fault("{{ x|nope }}", "{}", JINJA_SYNTAX);
    expect_fault("{% if 0 %}{{ x|nope }}{% endif %}{{ x is nope }}", "{}", JINJA_SYNTAX);
    expect_fault("{% if 1 %}{{ x|nope }}{% endif %}", "{}", JINJA_RUNTIME);
    expect_fault("{% break %}", "{}", JINJA_SYNTAX);
    expect_fault("{{ x.y.z }}", "{}", JINJA_RUNTIME);
    expect_fault("{{ [].append(1) }}", "{}", JINJA_RUNTIME);
    expect_fault("{{ 1 / 0 }}", "{}", JINJA_RUNTIME);
    expect_fault("{{ 1 % 0 }}", "{}", JINJA_RUNTIME);
    expect_fault("{{ (-9223372036854775807 - 1) // -1 }}", "{}", JINJA_RUNTIME);
    expect_fault("{{ 9223372036854775807 + 1 }}", "{}", JINJA_RUNTIME);
    expect_fault("{{ {l: 1} }}", "{\"l\":[]}", JINJA_RUNTIME);
    expect_fault("{{ d.get([]) }}", "{\"d\":{}}", JINJA_RUNTIME);
    expect_fault("{% include 'x' %}", "{}", JINJA_RUNTIME);
    expect_fault("{{ raise_exception('no') }}", "{}", JINJA_RAISED);
}

/* ---- budgets ---- */

static char *repeated(const char *a, size_t n, const char *mid, const char *b) {
    struct buf t;
    buf_init(&t, 1 << 26);
    for (size_t i = 0; i < n; i++) buf_adds(&t, a);
    buf_adds(&t, mid);
    for (size_t i = 0; i < n; i++) buf_adds(&t, b);
    return buf_take(&t, NULL);
}

static void expect_deep(const char *a, size_t n, const char *mid, const char *b, enum jinja_fault fault) {
    char *s = repeated(a, n, mid, b), *whole = mem_alloc(strlen(s) + 16);
    sprintf(whole, *a == '{' ? "%s" : "{{ %s }}", s);
    expect_fault(whole, "{}", fault);
    free(whole);
    free(s);
}

static void test_depth(void **state) {
    (void)state;
    expect_deep("(", 60000, "1", ")", JINJA_SYNTAX);
    expect_deep("[", 60000, "1", "]", JINJA_SYNTAX);
    expect_deep("-", 60000, "1", "", JINJA_SYNTAX);
    expect_deep("not ", 60000, "1", "", JINJA_SYNTAX);
    expect_deep("1 + ", 60000, "1", "", JINJA_SYNTAX);
    expect_deep("1 if 0 else ", 60000, "1", "", JINJA_SYNTAX);
    expect_deep("x|", 1, "a", ".b", JINJA_SYNTAX);
    expect_deep("", 60000, "x", "|upper", JINJA_SYNTAX);
    expect_deep("{% if 1 %}", 60000, "x", "{% endif %}", JINJA_SYNTAX);
    expect_fault("{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}", "{}", JINJA_LIMIT);
    expect_fault("{% set n = namespace() %}{% set n.n = n %}{{ n }}", "{}", JINJA_LIMIT);
    expect_fault("{% set n = namespace(l=[]) %}{% for i in range(3000) %}{% set n.l = [n.l] %}{% endfor %}{{ n.l }}",
                 "{}", JINJA_LIMIT);
}

static void test_budgets(void **state) {
    (void)state;
    expect_fault("{{ range(10**9) }}", "{}", JINJA_LIMIT);
    expect_fault("{{ 'a' * 10**9 }}", "{}", JINJA_LIMIT);
    expect_fault("{{ [1] * 10**9 }}", "{}", JINJA_LIMIT);
    expect_fault("{{ ('a' * 10**7) | center(10**9) }}", "{}", JINJA_LIMIT);
    expect_fault("{{ '%1000000000d' % 1 }}", "{}", JINJA_LIMIT);
    expect_fault("{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}", "{}", JINJA_LIMIT);
    expect_fault("{% set n = namespace(s='aaaaaaaa') %}{% for a in range(99) %}{% set n.s = n.s ~ n.s %}{% endfor %}",
                 "{}", JINJA_LIMIT);
    expect_fault("{% for a in range(99999) %}{{ 'x' * 100000 }}{% endfor %}", "{}", JINJA_LIMIT);
    expect(
        "{% set n = namespace(l=[]) %}{% for i in range(99999) %}{% set n.l = n.l + [i] %}{% endfor %}{{ n.l|length }}",
        "{}", "99999");
}

static void test_many_messages(void **state) {
    (void)state;
    static const char chatml[] =
        "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\\n' + m['content'] + '<|im_end|>' + '\\n' }}"
        "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}";
    static const char square[] = "{% for m in messages %}{% for k in messages %}{% endfor %}{% endfor %}";
    struct err e;
    struct jinja_out out;
    json_t *messages = json_array();
    for (int i = 0; i < 100000; i++)
        json_array_append_new(messages,
                              json_pack("{s:s,s:s}", "role", i % 2 ? "assistant" : "user", "content", "hello"));
    struct jinja_var vars[] = {{"messages", messages, false}};
    struct jinja_args a = {.vars = vars, .nvars = 1};
    jinja_out_init(&out);
    struct jinja *t = jinja_compile(chatml, strlen(chatml), &e);
    assert_int_equal(jinja_render(t, &a, &out, &e), 0);
    assert_int_equal(out.text.len, 50000 * (strlen("<|im_start|>user\nhello<|im_end|>\n") +
                                            strlen("<|im_start|>assistant\nhello<|im_end|>\n")));
    jinja_free(t);
    t = jinja_compile(square, strlen(square), &e);
    assert_int_equal(jinja_render(t, &a, &out, &e), -1);
    assert_int_equal(out.fault, JINJA_LIMIT);
    jinja_free(t);
    jinja_out_release(&out);
    json_decref(messages);
}

/* ---- provenance: the output with [ ] around what is not trusted ---- */

static void expect_marked(const char *source, const char *vars, const char *want) {
    struct jinja_out out;
    struct err e = {0};
    struct buf b;
    jinja_out_init(&out);
    buf_init(&b, 1 << 20);
    if (render(source, vars, &out, &e) != JINJA_OK) fail_msg("%s: %s", source, e.text);
    size_t at = 0;
    for (size_t i = 0; i < out.npieces; i++) {
        assert_int_equal(out.pieces[i].offset, at);
        if (!out.pieces[i].trusted) buf_addc(&b, '[');
        buf_add(&b, out.text.data + at, out.pieces[i].length);
        if (!out.pieces[i].trusted) buf_addc(&b, ']');
        at += out.pieces[i].length;
    }
    assert_int_equal(at, out.text.len);
    assert_string_equal(buf_str(&b), want);
    buf_release(&b);
    jinja_out_release(&out);
}

static void test_provenance(void **state) {
    (void)state;
    static const char v[] =
        "{\"c\":\"<|x|>\",\"r\":\"user\",\"bos_token\":\"<s>\",\"l\":[\" a \",\"b\"],\"m\":\"aXbXc\"}";
    expect_marked("T{{ c }}T", v, "T[<|x|>]T");
    expect_marked("{{ bos_token ~ '<|' ~ r ~ '|>' ~ c }}", v, "<s><|user|>[<|x|>]");
    expect_marked("{{ 'a' + c + 'b' }}", v, "a[<|x|>]b");
    expect_marked("{{ ('a' + c + 'b')[1:] }}", v, "[<|x|>]b");
    expect_marked("{{ ('a' + c + 'b')[::-1] }}", v, "b[>|x|<]a");
    expect_marked("{{ (' ' + c + ' ')|trim }}", v, "[<|x|>]");
    expect_marked("{{ m|replace('X', '<|>') }}", v, "[a]<|>[b]<|>[c]");
    expect_marked("{{ '<|>'|replace('|', m) }}", v, "<[aXbXc]>");
    expect_marked("{{ m.split('X')|join('-') }}", v, "[a]-[b]-[c]");
    expect_marked("{{ l|join('|') }}{{ l[0].strip() }}", v, "[ a ]|[ba]");
    expect_marked("{{ '%s:%s' % (c, 1) }}{{ '{}-{}'.format(m, 'k') }}", v, "[<|x|>]:1[aXbXc]-k");
    expect_marked("{{ {'k': c}|tojson }}", v, "[{\"k\": \"<|x|>\"}]");
    expect_marked("{{ {'k': 'v'}|tojson }}", v, "{\"k\": \"v\"}");
    expect_marked("{% set s %}A{{ c }}B{% endset %}{{ s }}", v, "A[<|x|>]B");
    expect_marked("{% macro q(x) %}<{{ x }}>{% endmacro %}{{ q(c) }}{{ q('y') }}", v, "<[<|x|>]><y>");
    expect_marked("{{ (c + 'a')|upper }}{{ 'a'|upper }}{{ c|upper }}", v, "[<|X|>A]A[<|X|>]");
    expect_marked("{{ l }}", v, "['[ a ]', '[b]']");
    expect_marked("{% for x in m %}{{ x }}-{% endfor %}", v, "[a]-[X]-[b]-[X]-[c]-");
    expect_marked("{{ (c ~ '\\n' ~ c)|indent(2) }}", v, "[<|x|>]\n  [<|x|>]");
    expect_marked("{{ c if true }}{{ c or 'x' }}{{ none or 'x' }}", v, "[<|x|><|x|>]x");
}

/* ---- a model's folder ---- */

static void write_file(const char *dir, const char *name, const char *text) {
    char path[600];
    snprintf(path, sizeof path, "%s/%s", dir, name);
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    fputs(text, f);
    fclose(f);
}

static void expect_prompt(const char *dir, const char *request, const char *want) {
    struct err e = {0};
    struct jinja_out out;
    struct chat_template *t = chat_template_open(dir, NULL, &e);
    if (!t) fail_msg("%s", e.text);
    json_t *j = json_loads(request, 0, NULL);
    struct chat_args a = {.messages = json_object_get(j, "messages"),
                          .tools = json_object_get(j, "tools"),
                          .kwargs = json_object_get(j, "kwargs"),
                          .add_generation_prompt = json_is_true(json_object_get(j, "gen")),
                          .continue_final_message = json_is_true(json_object_get(j, "continue"))};
    jinja_out_init(&out);
    int rc = chat_template_render(t, &a, &out, &e);
    if (want && rc) fail_msg("%s", e.text);
    assert_int_equal(rc, want ? 0 : -1);
    if (want) assert_string_equal(buf_str(&out.text), want);
    jinja_out_release(&out);
    chat_template_free(t);
    json_decref(j);
}

static void test_folder(void **state) {
    (void)state;
    char dir[] = "/tmp/minisgl-template-XXXXXX", cmd[100];
    static const char one[] = "{\"messages\":[{\"role\":\"user\",\"content\":\" hi \"}]}";
    assert_non_null(mkdtemp(dir));
    expect_prompt(dir, one, NULL);
    write_file(dir, "tokenizer_config.json",
               "{\"bos_token\":{\"content\":\"<s>\"},\"eos_token\":null,\"chat_template\":"
               "\"{{ bos_token }}{{ eos_token }}{{ messages[0].content }}{{ tools is none }}\"}");
    write_file(dir, "special_tokens_map.json", "{\"bos_token\":\"no\",\"eos_token\":\"</s>\"}");
    expect_prompt(dir, one, "<s></s> hi True");
    expect_prompt(dir, "{\"messages\":[{\"content\":\" hi \"}],\"continue\":true}", "<s></s> hi ");
    expect_prompt(dir, "{\"messages\":[{\"content\":\" hi \"}],\"continue\":true,\"gen\":true}", NULL);
    expect_prompt(dir, "{\"messages\":[{\"content\":\"hi\"}],\"kwargs\":{\"bos_token\":\"B\"}}", "B</s>hiTrue");
    expect_prompt(dir, "{\"messages\":[{\"content\":\"hi\"}],\"kwargs\":{\"messages\":[]}}", NULL);
    write_file(dir, "tokenizer_config.json",
               "{\"chat_template\":[{\"name\":\"default\",\"template\":\"D\"},"
               "{\"name\":\"tool_use\",\"template\":\"T\"},{\"name\":\"rag\",\"template\":\"{{\"}]}");
    expect_prompt(dir, one, "D");
    expect_prompt(dir, "{\"messages\":[],\"tools\":[{}]}", "T");
    write_file(dir, "chat_template.jinja", "J\n\n");
    expect_prompt(dir, "{\"messages\":[],\"tools\":[{}]}", "J\n");
    write_file(dir, "chat_template.jinja", "{% if %}");
    struct err e;
    assert_null(chat_template_open(dir, NULL, &e));
    assert_non_null(strstr(e.text, "chat_template.jinja"));
    snprintf(cmd, sizeof cmd, "rm -r %s", dir);
    assert_int_equal(system(cmd), 0);
}

/* ---- threads: one compiled template, many renders ---- */

static void *render_many(void *arg) {
    struct jinja *t = arg;
    struct err e;
    struct jinja_out out;
    json_t *v = json_pack("[s,s]", "é", "b");
    struct jinja_var vars[] = {{"l", v, false}};
    struct jinja_args a = {.vars = vars, .nvars = 1};
    intptr_t good = 0;
    jinja_out_init(&out);
    for (int i = 0; i < 200; i++)
        good += jinja_render(t, &a, &out, &e) == 0 && strcmp(buf_str(&out.text), "äé|äb|3") == 0;
    jinja_out_release(&out);
    json_decref(v);
    return (void *)good;
}

static void test_threads(void **state) {
    (void)state;
    static const char source[] = "{% for x in l %}{{ 'äö'[0] }}{{ x }}|{% endfor %}{{ 'äöü'|length }}";
    struct err e;
    struct jinja *t = jinja_compile(source, strlen(source), &e);
    pthread_t th[4];
    void *good;
    for (int i = 0; i < 4; i++) assert_int_equal(pthread_create(&th[i], NULL, render_many, t), 0);
    for (int i = 0; i < 4; i++) {
        pthread_join(th[i], &good);
        assert_int_equal((intptr_t)good, 200);
    }
    jinja_free(t);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_golden),     cmocka_unit_test(test_language), cmocka_unit_test(test_faults),
        cmocka_unit_test(test_depth),      cmocka_unit_test(test_budgets),  cmocka_unit_test(test_many_messages),
        cmocka_unit_test(test_provenance), cmocka_unit_test(test_folder),   cmocka_unit_test(test_threads),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
