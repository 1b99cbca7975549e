/* jinja_test.c: the tests (`x is defined`). State belongs to the rendering thread. */
#include "text/jinja_int.h"

#define FAIL(...) jx_fail(&rt->x, JINJA_RUNTIME, __VA_ARGS__)
#define TEST(name) static bool name(struct rt *rt, struct val v, struct val arg)
#define UNUSED (void)rt, (void)v, (void)arg

typedef bool test_fn(struct rt *rt, struct val v, struct val arg);

TEST(t_defined) {
    UNUSED;
    return v.t != V_UNDEF;
}
TEST(t_undefined) {
    UNUSED;
    return v.t == V_UNDEF;
}
TEST(t_none) {
    UNUSED;
    return v.t == V_NONE;
}
TEST(t_boolean) {
    UNUSED;
    return v.t == V_BOOL;
}
TEST(t_true) {
    UNUSED;
    return v.t == V_BOOL && v.b;
}
TEST(t_false) {
    UNUSED;
    return v.t == V_BOOL && !v.b;
}
TEST(t_integer) {
    UNUSED;
    return v.t == V_INT;
}
TEST(t_float) {
    UNUSED;
    return v.t == V_FLOAT;
}
TEST(t_number) {
    UNUSED;
    return is_num(v);
}
TEST(t_string) {
    UNUSED;
    return v.t == V_STR;
}
TEST(t_mapping) {
    UNUSED;
    return v.t == V_DICT;
}
TEST(t_iterable) {
    UNUSED;
    return iterable(v);
}
TEST(t_escaped) {
    UNUSED;
    return v.t == V_STR && v.s->markup;
}
TEST(t_sameas) {
    UNUSED;
    return val_same(v, arg);
}
TEST(t_in) { return contains(rt, arg, v); }
TEST(t_eq) { return compare(rt, OP_EQ, v, arg); }
TEST(t_ne) { return compare(rt, OP_NE, v, arg); }
TEST(t_lt) { return compare(rt, OP_LT, v, arg); }
TEST(t_le) { return compare(rt, OP_LE, v, arg); }
TEST(t_gt) { return compare(rt, OP_GT, v, arg); }
TEST(t_ge) { return compare(rt, OP_GE, v, arg); }
TEST(t_sequence) {
    UNUSED;
    return v.t == V_UNDEF || v.t == V_STR || v.t == V_LIST || v.t == V_TUPLE || v.t == V_DICT || v.t == V_RANGE;
}
TEST(t_callable) {
    UNUSED;
    return v.t == V_UNDEF || v.t == V_FUNC || v.t == V_METHOD || v.t == V_MACRO || v.t == V_LOOP || v.t == V_JOINER;
}
TEST(t_odd) {
    (void)arg;
    return val_eq(rt, binary(rt, OP_MOD, v, v_int(2)), v_int(1));
}
TEST(t_even) {
    (void)arg;
    return val_eq(rt, binary(rt, OP_MOD, v, v_int(2)), v_int(0));
}
TEST(t_divisibleby) { return val_eq(rt, binary(rt, OP_MOD, v, arg), v_int(0)); }

static bool cased_as(struct rt *rt, struct val v, bool upper) {
    struct str *s = to_str(rt, v);
    bool any = false;
    for (size_t i = 0, w; i < s->n; i += w) {
        uint32_t c = u_get(s->p + i, s->n - i, &w);
        if (u_title(c) || (upper ? u_lower(c) : u_upper(c))) return false;
        any = any || (upper ? u_upper(c) : u_lower(c));
    }
    return any;
}
TEST(t_lower) {
    (void)arg;
    return cased_as(rt, v, false);
}
TEST(t_upper) {
    (void)arg;
    return cased_as(rt, v, true);
}
TEST(t_filter) {
    UNUSED;
    if (!hashable(v)) FAIL("unhashable type: '%s'", type_name(v));
    return v.t == V_STR && filter_find(v.s) >= 0;
}
TEST(t_test) {
    UNUSED;
    if (!hashable(v)) FAIL("unhashable type: '%s'", type_name(v));
    return v.t == V_STR && test_find(v.s) >= 0;
}

static const struct {
    const char *name;
    test_fn *fn;
    const char *arg; /* the argument's name, "" for none, "/" for one without a name */
} tests[] = {
    {"odd", t_odd, ""},
    {"even", t_even, ""},
    {"divisibleby", t_divisibleby, "num"},
    {"defined", t_defined, ""},
    {"undefined", t_undefined, ""},
    {"filter", t_filter, ""},
    {"test", t_test, ""},
    {"none", t_none, ""},
    {"boolean", t_boolean, ""},
    {"false", t_false, ""},
    {"true", t_true, ""},
    {"integer", t_integer, ""},
    {"float", t_float, ""},
    {"lower", t_lower, ""},
    {"upper", t_upper, ""},
    {"string", t_string, ""},
    {"mapping", t_mapping, ""},
    {"number", t_number, ""},
    {"sequence", t_sequence, ""},
    {"iterable", t_iterable, ""},
    {"callable", t_callable, ""},
    {"sameas", t_sameas, "other"},
    {"escaped", t_escaped, ""},
    {"in", t_in, "seq"},
    {"==", t_eq, "/"},
    {"eq", t_eq, "/"},
    {"equalto", t_eq, "/"},
    {"!=", t_ne, "/"},
    {"ne", t_ne, "/"},
    {">", t_gt, "/"},
    {"gt", t_gt, "/"},
    {"greaterthan", t_gt, "/"},
    {"ge", t_ge, "/"},
    {">=", t_ge, "/"},
    {"<", t_lt, "/"},
    {"lt", t_lt, "/"},
    {"lessthan", t_lt, "/"},
    {"<=", t_le, "/"},
    {"le", t_le, "/"},
};

int test_find(const struct str *name) {
    for (size_t i = 0; i < sizeof tests / sizeof *tests; i++)
        if (str_is(name, tests[i].name)) return (int)i;
    return -1;
}

bool test_call(struct rt *rt, int id, struct val in, struct call *c) {
    struct val arg = v_none();
    jx_charge(&rt->x, 1);
    bind_args(rt, tests[id].name, tests[id].arg, tests[id].arg[0] != 0, c, &arg);
    return tests[id].fn(rt, in, arg);
}
