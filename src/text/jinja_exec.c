/* jinja_exec.c: statements, macros, loops, and the two entries jinja_compile and jinja_render.
 *
 * State: a struct rt on the caller's stack, owned by the rendering thread. Output goes to rt->out, which blocks that
 * capture (macros, set, filter, call) replace for their time. */
#include "base/clock.h"
#include "base/mem.h"
#include "text/jinja_int.h"

#include <stdlib.h>

#define FAIL(...) jx_fail(&rt->x, JINJA_RUNTIME, __VA_ARGS__)

enum flow { FLOW_ON, FLOW_BREAK, FLOW_CONTINUE };

static enum flow exec_all(struct rt *rt, struct act *a, struct nodes *list);

static struct act *new_act(struct rt *rt, struct act *up, const struct func *f) {
    struct act *a = NEW(&rt->x, struct act);
    a->up = up;
    a->slots = jx_array(&rt->x, (size_t)f->nslots, sizeof *a->slots);
    for (int i = 0; i < f->nslots; i++) a->slots[i] = v_missing();
    return a;
}

static void print(struct rt *rt, struct val v) {
    if (rt->autoescape && !(v.t == V_STR && v.s->markup))
        escape_into(rt->out, to_str(rt, v));
    else
        val_str(rt, rt->out, v);
}

static struct str *capture(struct rt *rt, struct sb *b, struct sb *outer) { /* the end of a capturing block */
    rt->out = outer;
    b->markup = rt->autoescape;
    return sb_take(b);
}

/* ---- loops ---- */

int64_t loop_length(struct rt *rt, struct loop *l) {
    if (l->length >= 0) return l->length;
    if (l->iterable.t != V_ITER && val_len(rt, l->iterable, &l->length)) return l->length;
    struct vec rest = iter_all(rt, (struct val){.t = V_ITER, .it = l->it});
    l->it = val_iter(rt, v_list(&rt->x, rest.v, rest.n, false));
    l->length = (int64_t)rest.n + l->index0 + 1 + (l->after.t != V_MISSING);
    return l->length;
}

static bool loop_peek(struct rt *rt, struct loop *l) {
    if (l->after.t != V_MISSING) return true;
    if (!iter_next(rt, l->it, &l->after)) {
        l->after = v_missing();
        return false;
    }
    return true;
}

static bool loop_next(struct rt *rt, struct loop *l, struct val *out) {
    if (!loop_peek(rt, l)) return false;
    *out = l->after;
    l->after = v_missing();
    l->index0++;
    l->before = l->current;
    l->current = *out;
    return true;
}

bool loop_attr(struct rt *rt, struct loop *l, const struct str *name, struct val *out) {
    if (str_is(name, "index"))
        *out = v_int(l->index0 + 1);
    else if (str_is(name, "index0"))
        *out = v_int(l->index0);
    else if (str_is(name, "first"))
        *out = v_bool(l->index0 == 0);
    else if (str_is(name, "last"))
        *out = v_bool(!loop_peek(rt, l));
    else if (str_is(name, "length"))
        *out = v_int(loop_length(rt, l));
    else if (str_is(name, "revindex"))
        *out = v_int(loop_length(rt, l) - l->index0);
    else if (str_is(name, "revindex0"))
        *out = v_int(loop_length(rt, l) - l->index0 - 1);
    else if (str_is(name, "depth"))
        *out = v_int(l->depth0 + 1);
    else if (str_is(name, "depth0"))
        *out = v_int(l->depth0);
    else if (str_is(name, "previtem"))
        *out = l->index0 == 0 ? v_undef_hint(&rt->x, "there is no previous item") : l->before;
    else if (str_is(name, "nextitem"))
        *out = loop_peek(rt, l) ? l->after : v_undef_hint(&rt->x, "there is no next item");
    else
        return false;
    return true;
}

bool iter_for_next(struct rt *rt, struct iter *it, struct val *out) { /* the filter of `for x in y if z` */
    struct node *n = it->node;
    if (!it->started) {
        it->from = val_iter(rt, it->src);
        it->started = true;
        enter_scope(rt, it->act, n->scope2);
    }
    while (iter_next(rt, it->from, out)) {
        assign(rt, it->act, n->dyn, *out);
        if (truthy(rt, eval(rt, it->act, n->c))) return true;
    }
    return false;
}

static struct loop *new_loop(struct rt *rt, struct act *a, struct node *n, struct val iterable, struct iter *it,
                             int depth0) {
    struct loop *l = NEW(&rt->x, struct loop);
    *l = (struct loop){
        .it = it, .iterable = iterable, .index0 = -1, .length = -1, .depth0 = depth0, .node = n, .act = a->up};
    return l;
}

static enum flow run_for(struct rt *rt, struct act *a, struct node *n, struct val iterable, int depth0) {
    enum flow flow = FLOW_ON;
    bool whole = false; /* as in Jinja: a turn cut short by break or continue does not keep `else` from running */
    struct loop *l = NULL;
    if (n->c) {
        struct val it = v_iter(rt, IT_FOR, iterable);
        it.it->node = n;
        it.it->act = a;
        iterable = it;
    }
    struct iter *it = val_iter(rt, iterable);
    if (n->loop_slot >= 0) l = new_loop(rt, a, n, iterable, it, depth0);
    struct val item;
    while (flow != FLOW_BREAK && (l ? loop_next(rt, l, &item) : iter_next(rt, it, &item))) {
        if (l) a->slots[n->loop_slot] = (struct val){.t = V_LOOP, .loop = l};
        assign(rt, a, n->a, item);
        enter_scope(rt, a, n->scope);
        flow = exec_all(rt, a, &n->body);
        if (flow == FLOW_ON) whole = true;
    }
    if (whole || !n->dynkw) return FLOW_ON;
    enter_scope(rt, a, n->dynkw->scope);
    return exec_all(rt, a, &n->dynkw->body);
}

static struct str *run_recursive(struct rt *rt, struct act *up, struct node *n, struct val iterable, int depth0) {
    struct act *a = new_act(rt, up, n->func);
    struct sb b, *outer = rt->out;
    sb_init(&b, &rt->x);
    rt->out = &b;
    run_for(rt, a, n, iterable, depth0);
    return capture(rt, &b, outer);
}

struct val call_loop(struct rt *rt, struct loop *l, struct val iterable) {
    if (!l->node->recursive) FAIL("The loop must have the 'recursive' marker to be called recursively.");
    return v_str(run_recursive(rt, l->act, l->node, iterable, l->depth0 + 1));
}

static enum flow exec_for(struct rt *rt, struct act *a, struct node *n) {
    struct val iterable = eval(rt, a, n->b);
    if (!n->recursive) return run_for(rt, a, n, iterable, 0);
    sb_str(rt->out, run_recursive(rt, a, n, iterable, 0));
    return FLOW_ON;
}

/* ---- macros ---- */

static bool take_keyword(struct call *c, bool *used, const struct str *name, struct val *out) {
    for (size_t i = 0; i < c->nkw; i++) {
        if (used[i] || !str_eq(c->kw[i], name)) continue;
        used[i] = true;
        *out = c->kwv[i];
        return true;
    }
    return false;
}

static void bind_parameters(struct rt *rt, struct act *a, struct macro *m, struct call *c, bool *used) {
    struct node *n = m->node;
    bool found_caller = c->n >= n->list.n ? n->explicit_caller : false;
    for (size_t i = 0; i < n->list.n; i++) {
        struct node *arg = n->list.v[i];
        struct val v = v_missing();
        if (i < c->n) {
            v = c->pos[i];
        } else {
            take_keyword(c, used, arg->name, &v);
            if (str_is(arg->name, "caller")) found_caller = true;
        }
        a->slots[arg->slot] = v;
    }
    if (n->caller_slot < 0 || found_caller) return;
    struct val caller = v_none();
    take_keyword(c, used, str_z(&rt->x, "caller"), &caller);
    if (caller.t == V_NONE) caller = v_undef_hint(&rt->x, "No caller defined");
    a->slots[n->caller_slot] = caller;
}

static void bind_rest(struct rt *rt, struct act *a, struct macro *m, struct call *c, const bool *used) {
    struct node *n = m->node;
    struct dict *rest = n->kwargs_slot >= 0 ? dict_new(&rt->x) : NULL;
    for (size_t i = 0; i < c->nkw; i++) {
        if (used[i]) continue;
        if (!rest)
            FAIL("macro %s takes no keyword argument %s", m->name ? cstr_repr(rt, v_str(m->name)) : "None",
                 cstr_repr(rt, v_str(c->kw[i])));
        dict_set(rt, rest, v_str(c->kw[i]), c->kwv[i]);
    }
    if (rest) a->slots[n->kwargs_slot] = (struct val){.t = V_DICT, .d = rest};
    size_t extra = c->n > n->list.n ? c->n - n->list.n : 0;
    if (n->varargs_slot >= 0)
        a->slots[n->varargs_slot] = v_list(&rt->x, c->pos + (c->n - extra), extra, true);
    else if (extra)
        FAIL("macro %s takes not more than %zu argument(s)", m->name ? cstr_repr(rt, v_str(m->name)) : "None",
             n->list.n);
}

static void bind_defaults(struct rt *rt, struct act *a, struct node *n) {
    for (size_t i = 0; i < n->list.n; i++) {
        struct val *slot = &a->slots[n->list.v[i]->slot];
        if (slot->t != V_MISSING) continue;
        size_t without = n->list.n - n->vals.n;
        if (i >= without) {
            *slot = eval(rt, a, n->vals.v[i - without]);
        } else {
            struct sb b;
            sb_init(&b, &rt->x);
            sb_z(&b, "parameter '", true);
            sb_str(&b, n->list.v[i]->name);
            sb_raw(&b, "' was not provided", 19, true);
            *slot = v_undef_hint(&rt->x, sb_take(&b)->p);
        }
    }
}

struct val call_macro(struct rt *rt, struct macro *m, struct call *c) {
    struct node *n = m->node;
    struct act *a = new_act(rt, m->act, n->func);
    bool *used = jx_zalloc(&rt->x, c->nkw);
    struct sb b, *outer = rt->out;
    bind_parameters(rt, a, m, c, used);
    bind_rest(rt, a, m, c, used);
    sb_init(&b, &rt->x);
    rt->out = &b;
    enter_scope(rt, a, n->scope);
    bind_defaults(rt, a, n);
    exec_all(rt, a, &n->body);
    return v_str(capture(rt, &b, outer));
}

static struct val new_macro(struct rt *rt, struct act *a, struct node *n, struct str *name) {
    struct macro *m = NEW(&rt->x, struct macro);
    *m = (struct macro){n, a, name};
    return (struct val){.t = V_MACRO, .macro = m};
}

/* What a call or filter block gives is joined with the text around it, so it must be text. */
static void print_text(struct rt *rt, struct val v) {
    if (v.t != V_STR) FAIL("expected str instance, %s found", type_name(v));
    sb_str(rt->out, v.s);
}

static void exec_call_block(struct rt *rt, struct act *a, struct node *n) {
    struct val caller = new_macro(rt, a, n, NULL), f = eval(rt, a, n->a->a);
    struct call *c = eval_call(rt, a, n->a);
    struct str **kw = jx_array(&rt->x, c->nkw + 1, sizeof *kw);
    struct val *kwv = jx_array(&rt->x, c->nkw + 1, sizeof *kwv);
    for (size_t i = 0; i < c->nkw; i++) kw[i] = c->kw[i], kwv[i] = c->kwv[i];
    kw[c->nkw] = str_z(&rt->x, "caller");
    kwv[c->nkw] = caller;
    struct call with = {.pos = c->pos, .n = c->n, .kw = kw, .kwv = kwv, .nkw = c->nkw + 1};
    print_text(rt, call_value(rt, f, &with));
}

/* ---- the other statements ---- */

static void export_target(struct rt *rt, struct act *a, struct node *target) { /* the context sees what the top sets */
    if (target->t == N_NAME) dict_set(rt, rt->context, v_str(target->name), a->slots[target->slot]);
    for (size_t i = 0; i < target->list.n; i++) export_target(rt, a, target->list.v[i]);
}

static void check_namespaces(struct rt *rt, struct act *a, struct node *target) {
    if (target->t == N_NSREF) {
        struct act *at = a;
        for (int i = 0; i < target->hops; i++) at = at->up;
        if (at->slots[target->slot].t != V_NS) FAIL("cannot assign attribute on non-namespace object");
    }
    for (size_t i = 0; i < target->list.n; i++) check_namespaces(rt, a, target->list.v[i]);
}

static void exec_set(struct rt *rt, struct act *a, struct node *n) {
    check_namespaces(rt, a, n->a);
    assign(rt, a, n->a, eval(rt, a, n->b));
    if (n->store) export_target(rt, a, n->a);
}

static struct val run_filters(struct rt *rt, struct act *a, struct node *f, struct val text) {
    struct val in = f->a ? run_filters(rt, a, f->a, text) : text;
    if (f->id < 0) FAIL("No filter named '%.*s' found.", (int)(f->name->n < 60 ? f->name->n : 60), f->name->p);
    return filter_call(rt, f->id, in, eval_call(rt, a, f));
}

static enum flow exec_capture(struct rt *rt, struct act *a, struct node *n) { /* {% set x %}, {% filter f %} */
    struct sb b, *outer = rt->out;
    struct node *filter = n->t == N_SETBLOCK ? n->b : n->a;
    sb_init(&b, &rt->x);
    rt->out = &b;
    enter_scope(rt, a, n->scope);
    enum flow flow = exec_all(rt, a, &n->body);
    struct val v = v_str(capture(rt, &b, outer));
    if (flow != FLOW_ON) return flow;
    if (filter) v = run_filters(rt, a, filter, v);
    if (n->t == N_FILTERBLOCK) {
        print_text(rt, v);
        return FLOW_ON;
    }
    check_namespaces(rt, a, n->a);
    assign(rt, a, n->a, v);
    if (n->store) export_target(rt, a, n->a);
    return FLOW_ON;
}

static enum flow exec_with(struct rt *rt, struct act *a, struct node *n) {
    enter_scope(rt, a, n->scope);
    for (size_t i = 0; i < n->list.n; i++) assign(rt, a, n->list.v[i], eval(rt, a, n->vals.v[i]));
    return exec_all(rt, a, &n->body);
}

static enum flow exec_autoescape(struct rt *rt, struct act *a, struct node *n) {
    bool outer = rt->autoescape;
    enter_scope(rt, a, n->scope);
    rt->autoescape = truthy(rt, eval(rt, a, n->a));
    enum flow flow = exec_all(rt, a, &n->body);
    rt->autoescape = outer;
    return flow;
}

static void exec_function(struct rt *rt, struct act *a, struct node *n) { /* block, generation: printed in place */
    struct act *in = new_act(rt, a, n->func);
    enter_scope(rt, in, n->scope);
    exec_all(rt, in, &n->body);
}

static enum flow exec_if(struct rt *rt, struct act *a, struct node *n) {
    if (truthy(rt, eval(rt, a, n->a))) return exec_all(rt, a, &n->body);
    for (size_t i = 0; i < n->vals.n; i++)
        if (truthy(rt, eval(rt, a, n->vals.v[i]->a))) return exec_all(rt, a, &n->vals.v[i]->body);
    return exec_all(rt, a, &n->other);
}

static void exec_output(struct rt *rt, struct act *a, struct node *n) {
    for (size_t i = 0; i < n->list.n; i++) {
        struct node *c = n->list.v[i];
        rt->x.line = c->line;
        if (c->t == N_DATA)
            sb_str(rt->out, c->v.s);
        else
            print(rt, eval(rt, a, c));
    }
}

static enum flow exec(struct rt *rt, struct act *a, struct node *n) {
    rt->x.line = n->line;
    switch (n->t) {
    case N_OUTPUT: exec_output(rt, a, n); return FLOW_ON;
    case N_IF: return exec_if(rt, a, n);
    case N_FOR: return exec_for(rt, a, n);
    case N_SET: exec_set(rt, a, n); return FLOW_ON;
    case N_SETBLOCK:
    case N_FILTERBLOCK: return exec_capture(rt, a, n);
    case N_WITH: return exec_with(rt, a, n);
    case N_AUTOESCAPE: return exec_autoescape(rt, a, n);
    case N_MACRO:
        a->slots[n->slot] = new_macro(rt, a, n, n->name);
        if (n->store) dict_set(rt, rt->context, v_str(n->name), a->slots[n->slot]);
        return FLOW_ON;
    case N_CALLBLOCK: exec_call_block(rt, a, n); return FLOW_ON;
    case N_BLOCK:
    case N_GENERATION: exec_function(rt, a, n); return FLOW_ON;
    case N_BREAK: return FLOW_BREAK;
    case N_CONTINUE: return FLOW_CONTINUE;
    case N_NOLOAD: FAIL("include, import and extends are not supported: a template cannot load another one");
    default: BUG("jinja: node %d is no statement", n->t);
    }
}

static enum flow exec_all(struct rt *rt, struct act *a, struct nodes *list) {
    enum flow flow = FLOW_ON;
    jx_enter(&rt->x);
    for (size_t i = 0; i < list->n && flow == FLOW_ON; i++) {
        jx_charge(&rt->x, 1);
        flow = exec(rt, a, list->v[i]);
    }
    jx_leave(&rt->x);
    return flow;
}

/* ---- entries ---- */

static int compile(struct jinja *t, const char *source, size_t n) {
    size_t count;
    if (setjmp(t->x.out)) return -1;
    struct token *tokens = jinja_lex(&t->x, source, n, &count);
    jinja_parse(t, tokens, count);
    jinja_resolve(t);
    return 0;
}

struct jinja *jinja_compile(const char *source, size_t n, struct err *e) {
    if (n > JINJA_MAX_SOURCE) {
        err_input(e, "the template has %zu bytes; at most %d are accepted", n, JINJA_MAX_SOURCE);
        return NULL;
    }
    struct jinja *t = mem_zalloc(1, sizeof *t);
    t->x.max = JINJA_MAX_MEMORY;
    t->x.steps = INT64_MAX;
    t->x.err = e;
    if (compile(t, source, n) != 0) {
        jinja_free(t);
        return NULL;
    }
    t->x.err = NULL;
    return t;
}

void jinja_free(struct jinja *t) {
    if (!t) return;
    jx_release(&t->x);
    free(t);
}

bool jinja_mentions(const struct jinja *t, const char *name) {
    for (size_t i = 0; i < t->nnames; i++)
        if (str_is(t->names[i], name)) return true;
    return false;
}

void jinja_out_init(struct jinja_out *o) {
    memset(o, 0, sizeof *o);
    buf_init(&o->text, JINJA_MAX_OUTPUT + 1);
}

void jinja_out_release(struct jinja_out *o) {
    buf_release(&o->text);
    free(o->pieces);
    o->pieces = NULL;
    o->npieces = 0;
}

static int render(struct rt *rt, struct sb *out) {
    if (setjmp(rt->x.out)) return -1;
    rt->context = dict_new(&rt->x);
    for (size_t i = 0; i < nglobals; i++)
        dict_set(rt, rt->context, v_z(&rt->x, global_name((int)i)), (struct val){.t = V_FUNC, .func = (int)i});
    for (size_t i = 0; i < rt->args->nvars; i++) {
        const struct jinja_var *v = &rt->args->vars[i];
        if (v->value) dict_set(rt, rt->context, v_z(&rt->x, v->name), from_json(rt, v->value, v->trusted, 0));
    }
    sb_init(out, &rt->x);
    rt->out = out;
    rt->root = new_act(rt, NULL, rt->t->func);
    enter_scope(rt, rt->root, rt->t->scope);
    exec_all(rt, rt->root, (struct nodes *)&rt->t->body);
    return 0;
}

static void hand_over(struct jinja_out *o, const struct sb *b) {
    buf_add(&o->text, b->p ? b->p : "", b->n);
    o->pieces = mem_array(b->nruns, sizeof *o->pieces);
    for (size_t i = 0, at = 0; i < b->nruns; at = b->runs[i++].end)
        o->pieces[i] = (struct jinja_piece){at, b->runs[i].end - at, b->runs[i].trusted};
    o->npieces = b->nruns;
}

int jinja_render(const struct jinja *t, const struct jinja_args *args, struct jinja_out *o, struct err *e) {
    struct rt rt = {.t = t, .args = args, .seed = clock_ns() * 0x9E3779B97F4A7C15u};
    struct sb out;
    rt.x.max = args->max_memory ? args->max_memory : JINJA_MAX_MEMORY;
    rt.x.steps = args->max_steps ? args->max_steps : JINJA_MAX_STEPS;
    rt.x.err = e;
    jinja_out_release(o);
    jinja_out_init(o);
    int rc = render(&rt, &out);
    o->fault = rt.x.fault;
    if (rc == 0) hand_over(o, &out);
    jx_release(&rt.x);
    return rc;
}
