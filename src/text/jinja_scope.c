/* jinja_scope.c: which variable a name means, decided when a template is compiled.
 *
 * Jinja scopes by the text, not by the run: loops, macros, with, set blocks and filter blocks open a scope; a name
 * that a scope stores to anywhere is its own there, starting as a copy of the outer value; a name it only reads is
 * the outer one, or comes from the context when the scope is entered. Each scope is looked through once for its names
 * (declare), then its expressions are bound to slots (bind_*), then the scopes inside it get their turn.
 *
 * A function (the template, a macro, a block, a recursive loop) has one activation record with the slots of all its
 * scopes. State: the tree being compiled. Recursion is bounded by the parser's limits. */
#include "text/jinja_int.h"

struct resolver {
    struct jinja *t;
    struct jx *x;
    struct scope *scope; /* the current one */
    int branch;          /* inside an if: a first store there does not hide the context */
    bool soft;           /* inside an if: an unknown filter is an error only when it runs */
};

static void bind_statements(struct resolver *r, struct nodes *list);
static void bind_expr(struct resolver *r, struct node *n);

/* ---- symbols ---- */

static struct sym *own(struct scope *s, const struct str *name) {
    for (size_t i = 0; i < s->n; i++)
        if (str_eq(s->syms[i].name, name)) return &s->syms[i];
    return NULL;
}

static int hops(const struct func *from, const struct func *to) {
    int n = 0;
    for (; from != to; from = from->up) n++;
    return n;
}

static struct sym *find(struct scope *s, const struct str *name, struct scope **where) {
    for (; s; s = s->up) {
        struct sym *y = own(s, name);
        if (!y) continue;
        *where = s;
        return y;
    }
    return NULL;
}

static struct sym *define(struct resolver *r, struct str *name, enum load load) {
    struct scope *s = r->scope;
    if (s->n == s->cap) {
        s->cap = s->cap ? s->cap * 2 : 8;
        struct sym *v = jx_array(r->x, s->cap, sizeof *v);
        if (s->n) memcpy(v, s->syms, s->n * sizeof *v);
        s->syms = v;
    }
    struct sym *y = &s->syms[s->n++];
    *y = (struct sym){.name = name, .slot = s->func->nslots++, .load = load};
    return y;
}

static void load_name(struct resolver *r, struct str *name) {
    struct scope *where;
    if (!find(r->scope, name, &where)) define(r, name, LOAD_RESOLVE);
}

static void store_name(struct resolver *r, struct str *name) {
    struct scope *where;
    if (own(r->scope, name)) return;
    struct sym *outer = find(r->scope->up, name, &where);
    if (!outer) {
        define(r, name, r->branch ? LOAD_RESOLVE : LOAD_UNDEF);
        return;
    }
    struct sym *y = define(r, name, LOAD_ALIAS);
    y->from = outer->slot;
    y->hops = hops(r->scope->func, where->func);
}

static int param(struct resolver *r, struct str *name) {
    struct sym *y = own(r->scope, name);
    if (!y) y = define(r, name, LOAD_PARAM);
    y->load = LOAD_PARAM;
    return y->slot;
}

static struct scope *new_scope(struct resolver *r, struct scope *up, struct func *func) {
    struct scope *s = NEW(r->x, struct scope);
    s->up = up;
    s->func = func;
    return s;
}

static struct func *new_func(struct resolver *r, struct func *up) {
    struct func *f = NEW(r->x, struct func);
    f->up = up;
    return f;
}

/* ---- the names of one scope ---- */

static void declare_expr(struct resolver *r, struct node *n) {
    if (!n) return;
    if (n->t == N_NAME) {
        if (n->store)
            store_name(r, n->name);
        else
            load_name(r, n->name);
        return;
    }
    if (n->t == N_NSREF) load_name(r, n->name);
    declare_expr(r, n->a);
    declare_expr(r, n->b);
    declare_expr(r, n->c);
    for (size_t i = 0; i < n->list.n; i++) declare_expr(r, n->list.v[i]);
    for (size_t i = 0; i < n->vals.n; i++) declare_expr(r, n->vals.v[i]);
    declare_expr(r, n->dyn);
    declare_expr(r, n->dynkw);
}

static void declare_all(struct resolver *r, struct nodes *list);

static void declare(struct resolver *r, struct node *n) { /* stops at what opens a scope of its own */
    switch (n->t) {
    case N_FOR: declare_expr(r, n->b); break;
    case N_IF:
        declare_expr(r, n->a);
        r->branch++;
        declare_all(r, &n->body);
        declare_all(r, &n->vals);
        declare_all(r, &n->other);
        r->branch--;
        break;
    case N_SET:
        declare_expr(r, n->b);
        declare_expr(r, n->a);
        break;
    case N_SETBLOCK:
    case N_CALLBLOCK:
    case N_FILTERBLOCK: declare_expr(r, n->a); break;
    case N_WITH:
        for (size_t i = 0; i < n->vals.n; i++) declare_expr(r, n->vals.v[i]);
        break;
    case N_MACRO: store_name(r, n->name); break;
    case N_OUTPUT:
        for (size_t i = 0; i < n->list.n; i++) declare_expr(r, n->list.v[i]);
        break;
    case N_NOLOAD:
        declare_expr(r, n->a);
        for (size_t i = 0; i < n->list.n; i++) store_name(r, n->list.v[i]->name);
        break;
    default: break;
    }
}

static void declare_all(struct resolver *r, struct nodes *list) {
    for (size_t i = 0; i < list->n; i++) declare(r, list->v[i]);
}

static void declare_params(struct resolver *r, struct node *target) {
    if (target->t == N_NAME) param(r, target->name);
    for (size_t i = 0; i < target->list.n; i++) declare_params(r, target->list.v[i]);
}

/* ---- does a macro's body read `caller`, `kwargs`, `varargs` before it stores to it? 1 yes, -1 stored, 0 neither ----
 */

static int reads_all(const struct nodes *list, const char *name);

static int reads(const struct node *n, const char *name) {
    if (!n) return 0;
    if (n->t == N_BLOCK) return n->scoped && strcmp(name, "loop") == 0; /* a scoped block is given the loop it is in */
    if (n->t == N_NAME && str_is(n->name, name)) return n->store ? -1 : 1;
    int k;
    if ((k = reads(n->a, name)) || (k = reads(n->b, name))) return k;
    if (n->t != N_FOR && (k = reads(n->c, name))) return k;
    if (n->t == N_IF && (k = reads_all(&n->body, name))) return k;
    if ((k = reads_all(&n->list, name)) || (k = reads_all(&n->vals, name))) return k;
    if ((k = reads(n->dyn, name)) || (k = reads(n->dynkw, name))) return k;
    if (n->t != N_IF && (k = reads_all(&n->body, name))) return k;
    if ((k = reads_all(&n->other, name))) return k;
    return n->t == N_FOR ? reads(n->c, name) : 0;
}

static int reads_all(const struct nodes *list, const char *name) {
    int k = 0;
    for (size_t i = 0; i < list->n && k == 0; i++) k = reads(list->v[i], name);
    return k;
}

/* ---- binding ---- */

static void bind_name(struct resolver *r, struct node *n) {
    struct scope *where;
    struct sym *y = find(r->scope, n->name, &where);
    if (!y) { /* a name in a place that declare() does not see (a filter of a set block) */
        define(r, n->name, LOAD_RESOLVE);
        y = find(r->scope, n->name, &where);
    }
    n->slot = y->slot;
    n->hops = hops(r->scope->func, where->func);
}

static void bind_expr(struct resolver *r, struct node *n) {
    if (!n) return;
    bool soft = r->soft;
    if (n->t == N_NAME || n->t == N_NSREF) bind_name(r, n);
    if (n->t == N_COND) r->soft = true;
    if (n->t == N_FILTER || n->t == N_TEST) {
        n->id = n->t == N_FILTER ? filter_find(n->name) : test_find(n->name);
        if (n->id < 0 && !r->soft)
            jinja_syntax(r->x, n->line, "No %s named '%.*s'.", n->t == N_FILTER ? "filter" : "test",
                         (int)(n->name->n < 60 ? n->name->n : 60), n->name->p);
    }
    bind_expr(r, n->a);
    bind_expr(r, n->b);
    bind_expr(r, n->c);
    for (size_t i = 0; i < n->list.n; i++) bind_expr(r, n->list.v[i]);
    for (size_t i = 0; i < n->vals.n; i++) bind_expr(r, n->vals.v[i]);
    bind_expr(r, n->dyn);
    bind_expr(r, n->dynkw);
    r->soft = soft;
}

static void bind_scope(struct resolver *r, struct scope *s, struct nodes *body) { /* its names are declared */
    struct resolver inner = {.t = r->t, .x = r->x, .scope = s};
    bind_statements(&inner, body);
}

static struct node *clone_target(struct resolver *r, const struct node *n) {
    struct node *c = NEW(r->x, struct node);
    *c = *n;
    if (n->list.n) c->list.v = jx_array(r->x, n->list.n, sizeof *c->list.v);
    for (size_t i = 0; i < n->list.n; i++) c->list.v[i] = clone_target(r, n->list.v[i]);
    return c;
}

static void bind_for(struct resolver *r, struct node *n) {
    bind_expr(r, n->b);
    struct func *f = r->scope->func;
    if (n->recursive) f = n->func = new_func(r, f);
    struct resolver in = {.t = r->t, .x = r->x};
    if (n->c) { /* the filter has its own copy of the loop's variables: it may run ahead of the body */
        in.scope = n->scope2 = new_scope(r, r->scope, f);
        n->dyn = clone_target(r, n->a);
        declare_params(&in, n->dyn);
        declare_expr(&in, n->c);
        bind_expr(&in, n->dyn);
        bind_expr(&in, n->c);
    }
    in.scope = n->scope = new_scope(r, r->scope, f);
    if (n->recursive || reads_all(&n->body, "loop") > 0) n->loop_slot = param(&in, str_z(r->x, "loop"));
    declare_params(&in, n->a);
    declare_all(&in, &n->body);
    bind_expr(&in, n->a);
    bind_statements(&in, &n->body);
    if (n->other.n == 0) return;
    struct scope *other = new_scope(r, r->scope, f);
    struct resolver out = {.t = r->t, .x = r->x, .scope = other};
    declare_all(&out, &n->other);
    bind_statements(&out, &n->other);
    /* the else branch is entered through a node of its own, so that a for keeps three scopes at most */
    struct node *e = NEW(r->x, struct node);
    e->t = N_WITH;
    e->line = n->line;
    e->scope = other;
    e->body = n->other;
    n->dynkw = e;
}

static int special(struct resolver *r, struct node *n, const char *name) {
    for (size_t i = 0; i < n->list.n; i++)
        if (str_is(n->list.v[i]->name, name)) return -1;
    return reads_all(&n->body, name) > 0 ? param(r, str_z(r->x, name)) : -1;
}

static void bind_macro(struct resolver *r, struct node *n) { /* macro, call block, generation block */
    struct resolver in = {.t = r->t, .x = r->x};
    n->func = new_func(r, r->scope->func);
    in.scope = n->scope = new_scope(r, r->scope, n->func);
    for (size_t i = 0; i < n->list.n; i++) {
        struct node *arg = n->list.v[i];
        arg->slot = param(&in, arg->name);
        arg->hops = 0;
        if (!str_is(arg->name, "caller")) continue;
        n->explicit_caller = true;
        if (reads_all(&n->body, "caller") > 0 && i + n->vals.n < n->list.n)
            jinja_syntax(r->x, n->line, "the special \"caller\" argument must be omitted or be given a default");
    }
    if (n->t != N_GENERATION) {
        n->caller_slot = special(&in, n, "caller");
        n->kwargs_slot = special(&in, n, "kwargs");
        n->varargs_slot = special(&in, n, "varargs");
    }
    for (size_t i = 0; i < n->vals.n; i++) declare_expr(&in, n->vals.v[i]);
    declare_all(&in, &n->body);
    for (size_t i = 0; i < n->vals.n; i++) bind_expr(&in, n->vals.v[i]);
    bind_statements(&in, &n->body);
}

static void bind_inner(struct resolver *r, struct node *n) { /* with, set block, filter block, autoescape */
    struct resolver in = {.t = r->t, .x = r->x};
    in.scope = n->scope = new_scope(r, r->scope, r->scope->func);
    if (n->t == N_WITH)
        for (size_t i = 0; i < n->list.n; i++) declare_params(&in, n->list.v[i]);
    declare_all(&in, &n->body);
    struct node *filter = n->t == N_SETBLOCK ? n->b : n->t == N_FILTERBLOCK ? n->a : NULL;
    declare_expr(&in, filter);
    bind_expr(&in, filter);
    if (n->t == N_WITH)
        for (size_t i = 0; i < n->list.n; i++) bind_expr(&in, n->list.v[i]);
    bind_scope(&in, n->scope, &n->body);
}

static void bind_block(struct resolver *r, struct node *n) {
    struct resolver in = {.t = r->t, .x = r->x};
    n->func = new_func(r, n->scoped ? r->scope->func : NULL);
    in.scope = n->scope = new_scope(r, n->scoped ? r->scope : NULL, n->func);
    declare_all(&in, &n->body);
    bind_statements(&in, &n->body);
}

static void bind_if(struct resolver *r, struct node *n) {
    bool soft = r->soft;
    r->soft = true;
    bind_expr(r, n->a);
    bind_statements(r, &n->body);
    for (size_t i = 0; i < n->vals.n; i++) {
        bind_expr(r, n->vals.v[i]->a);
        bind_statements(r, &n->vals.v[i]->body);
    }
    bind_statements(r, &n->other);
    r->soft = soft;
}

static void bind_stored(struct resolver *r, struct node *n) { /* a macro's name is stored like a variable */
    struct scope *where;
    n->slot = find(r->scope, n->name, &where)->slot;
    n->store = r->scope == r->t->scope; /* at the top: the context gets it too */
}

static void bind_statement(struct resolver *r, struct node *n) {
    switch (n->t) {
    case N_FOR: bind_for(r, n); break;
    case N_IF: bind_if(r, n); break;
    case N_SET:
        bind_expr(r, n->b);
        bind_expr(r, n->a);
        n->store = r->scope == r->t->scope;
        break;
    case N_SETBLOCK:
        bind_expr(r, n->a);
        bind_inner(r, n);
        n->store = r->scope == r->t->scope;
        break;
    case N_WITH:
        for (size_t i = 0; i < n->vals.n; i++) bind_expr(r, n->vals.v[i]);
        bind_inner(r, n);
        break;
    case N_AUTOESCAPE:
        bind_inner(r, n);
        struct resolver in = {.t = r->t, .x = r->x, .scope = n->scope};
        declare_expr(&in, n->a);
        bind_expr(&in, n->a);
        break;
    case N_FILTERBLOCK: bind_inner(r, n); break;
    case N_MACRO:
        bind_stored(r, n);
        bind_macro(r, n);
        break;
    case N_CALLBLOCK:
        bind_expr(r, n->a);
        bind_macro(r, n);
        break;
    case N_GENERATION: bind_macro(r, n); break;
    case N_BLOCK: bind_block(r, n); break;
    case N_OUTPUT:
        for (size_t i = 0; i < n->list.n; i++) bind_expr(r, n->list.v[i]);
        break;
    case N_NOLOAD: bind_expr(r, n->a); break;
    default: break;
    }
}

static void bind_statements(struct resolver *r, struct nodes *list) {
    for (size_t i = 0; i < list->n; i++) bind_statement(r, list->v[i]);
}

void jinja_resolve(struct jinja *t) {
    struct resolver r = {.t = t, .x = &t->x};
    t->func = new_func(&r, NULL);
    r.scope = t->scope = new_scope(&r, NULL, t->func);
    declare_all(&r, &t->body);
    bind_statements(&r, &t->body);
}
