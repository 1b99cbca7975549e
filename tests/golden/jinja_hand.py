"""Templates written by hand, one idea each. Each is rendered with jinja_random.VARIABLES."""

EXPRESSIONS = r"""
1 + 2 * 3 ** 2
-2 ** 2
2 ** 3 ** 2
2 ** -1
0 ** 0
-7 // 2
-7 % 3
7 % -3
7.5 % -2
-7.5 // 2
0.0 // -1
1 / 3
4 / 2
1e308 * 10
1_000 + 0x1F + 0b11 + 0o17
1e3
1.5e-7
1_0.2_5
123456789012345678
0.1 + 0.2
1e16
1e15
123456789012345680.0
1e22
5e-324
1e-5
0.0001
100.0
-0.0
3 > 2 > 1
1 < 3 > 2
1 == 1.0
True == 1
none == false
'a' < 'b' <= 'b'
[1, 2] < [1, 3]
(1, 2) == [1, 2]
{'a': 1} == {'a': 1.0}
'a' in 'abc'
'' in ''
1 in [1.0]
none in [none]
'a' not in {'a': 1}
2 in range(3)
2.5 in range(3)
not 1 == 2
not (1 and 0)
1 and 'x' or 'y'
0 or none or []
'a' if 0
'a' if 0 else 'b' if 0 else 'c'
('a' if 0) is defined
'a' 'b' "c"
'a' ~ 1 ~ none ~ true ~ 1.0 ~ [1] ~ undef
'%s' % undef
'%s and %s' % ('a', 1)
'%d%%' % 5
'%5.2f|%-6s|%+d|%x|%o|%e' % (3.14159, 'ab', 5, 255, 8, 12345.678)
'%(a)s %(b)d' % {'a': 1, 'b': 2}
'%s' % [1]
'abc' % []
'abc' % 1
'%s %s' % 'a'
'%c%c' % ('x', 65)
'%r' % 'it\'s'
'%.3s|%10.2s' % ('abcdef', 'xyz')
'%*d' % (5, 3)
'%#x %#o' % (255, 8)
'%g %g %g' % (1e10, 0.0001, 100000.0)
'%i' % 2.9
'%d' % '3'
'{} {}'.format(1, 'a')
'{1} {0}'.format(1, 'a')
'{} {0}'.format(1)
'{x.a} {x[b]}'.format(x=d)
'{:>8}|{:<8}|{:^8}|{:*^8}'.format('a', 'b', 'c', 'd')
'{:08.3f} {:+d} {:,} {:_} {:x}'.format(3.14159, 5, 1234567, 1234567, 255)
'{:#b} {:e} {:g} {:%}'.format(5, 12345.678, 0.00001, 0.256)
'{:.3}'.format('abcdef')
'{:.3}'.format(3.14159)
'{:.3}'.format(1234567.0)
'{:5}|{:<5}|{:^5}|{:05}'.format(1, 2, 3, 4)
'{!r} {!s}'.format('a', 'b')
'{{}}'.format(1)
'{:{w}}|'.format('a', w=5)
'{:d}'.format('a')
'{:s}'.format(1)
'{'.format()
'}'.format()
'{a}'.format(b=1)
'{:c}'.format(65)
'{:n}'.format(1234)
'{: }'.format(3)
'{:010,}'.format(12345)
'{:=+8}'.format(42)
'{}'.format(none)
'{.real}'.format(1)
'{} {0.real}'.format(1)
'{0.real} {}'.format(1)
'{[0]}'.format([1])
-0.125|filesizeformat
'{:5}'.format(none)
'{0.__class__}'.format(1)
'{a}'.format_map({'a': 1})
'abc'[0] ~ 'abc'[-1] ~ 'abc'[5]
'abcdef'[1:4] ~ 'abcdef'[::-1] ~ 'abcdef'[-3:] ~ 'abcdef'[::2] ~ 'abcdef'[10:]
u[0:3] ~ u[::-1] ~ u[-2:] ~ u|length
l[1:] + l[:1]
l[::-1]
l[5]
l[-1]
l[1.5]
l['a']
l[true]
l[10:20]
l[::0]
(1, 2, 3)[1:]
range(10)[2:8:3]
range(10)[::-1]|list
range(5)
range(3).index('b')
range(3).index(1) ~ range(3).count(1) ~ range(9).count('b')
range(3).index(1, 0)
range(0)|list
range(5, 0, -2)|list
range(1.5)
range(1, 2, 0)
range(100001)
d.a ~ d['a'] ~ d.nope ~ d['nope']
d.items()
d.items
d['items']
d.keys()|list
d.get('a') ~ d.get('z') ~ d.get('z', 5)
d.nope.x
d[none]
d[[1]]
d.pop('a')
d.update({})
l.append(1)
l.append
l.pop
undef.x
undef['x']
undef
undef()
undef + 1
-undef
undef == undef
undef == none
undef is defined
undef|length
undef|list
undef|int
undef|upper
undef|default
undef|default('x')
undef|join
undef in [1]
1 in undef
undef is undefined and undef is not none
undef.__class__
none.x
none|default('x')
none|default('x', true)
none|d(1, boolean=true)
''|default('x', true)
none|length
none|string
none|upper
1|upper
1.5|string ~ 'x'
{'a': [1, (2,), {'b': none}], 1: 'x"y', 'it\'s': true}
[1, 'a\nb', "it's", 'say "x"', 'both \' and "', 1.0, none, true]
('a',)
()
[]
{}
[u]
['\x00\x7f\u200b\u00ad\u2028']
s.upper() ~ s.lower() ~ s.title() ~ s.capitalize() ~ s.swapcase()
u.upper()
u.lower()
u.title()
u|title
u|capitalize
u.casefold()
'ŉ ﬁ ǰ ΐ'.upper() ~ 'ǆ'.title() ~ 'İ'.lower()
'ΑΣ ΑΣΑ Σ'.lower()
sp.strip() ~ '|' ~ sp.lstrip() ~ '|' ~ sp.rstrip() ~ '|'
'xxaxx'.strip('x') ~ 'abcba'.lstrip('ab') ~ 'abcba'.rstrip('ab')
'\u00a0\u2003x\u3000'.strip()
csv.split(',') ~ csv.split(',', 1) ~ csv.rsplit(',', 1) ~ csv.split(',', maxsplit=2)
sp.split() ~ sp.split(none, 1) ~ sp.rsplit(none, 1)
' a  b '.split(' ')
''.split() ~ ''.split(',')
'a'.split('')
lines.splitlines() ~ lines.splitlines(true)
'a\x0bb\x0cc\x1cd\u2028e\x85f'.splitlines()
'a,b'.partition(',') ~ 'ab'.partition(',') ~ 'a,b,c'.rpartition(',')
s.find('o') ~ s.find('o', 5) ~ s.find('z') ~ s.rfind('o') ~ s.index('W') ~ s.count('l') ~ s.count('')
u.find('日') ~ u.count('ß') ~ u.index('😀')
s.index('z')
s.startswith('He') ~ s.endswith(('x', 'ld')) ~ s.startswith('e', 1) ~ s.startswith(1)
s.replace('l', 'L') ~ s.replace('l', 'L', 1) ~ s.replace('', '-') ~ 'aaa'.replace('aa', 'b')
'-'.join(sl) ~ '-'.join('abc') ~ '-'.join([])
'-'.join([1])
'5'.zfill(3) ~ '-5'.zfill(4) ~ 'a'.center(4) ~ 'a'.center(5) ~ 'ab'.center(5) ~ 'a'.ljust(3, '*') ~ 'a'.rjust(3, '*')
'prefix-x'.removeprefix('prefix-') ~ 'x.txt'.removesuffix('.txt')
'1²'.isdigit() ~ '1²'.isdecimal() ~ '½'.isnumeric() ~ 'aß'.isalpha() ~ 'a1'.isalnum() ~ ''.isalpha()
' '.isspace() ~ 'A b'.istitle() ~ 'Ab'.istitle()
'a\tb'.expandtabs() ~ 'a\tb'.expandtabs(2)
'x'.encode('utf8')
'x'.nope()
'x'.upper(1)
'x'.split(foo=1)
s|length ~ s|count ~ s|upper ~ s|lower ~ s|title ~ s|capitalize ~ s|reverse ~ s|first ~ s|last
s|list
s|replace('l', 'x') ~ s|replace('l', 'x', 1) ~ 1|replace(1, 2)
sp|trim ~ '|' ~ 'xax'|trim('x')
html|e ~ html|escape ~ html|forceescape ~ html|safe
(s|e).replace('l', [1, '<']) ~ (s|e).replace('l', undef) ~ (s|e).center(20, 1)
s.replace('l', 1)
dict ~ namespace ~ cycler ~ joiner
range ~ ''
s.upper
l|select
l|map('upper')|string|length
[cycler(1)]|join
{[1]: 2} == 1
html|e|e ~ (html|e|forceescape)
('<'|e) ~ '<'
('<'|e) + '<'
'<' + ('<'|e)
('<%s>'|safe) % '<'
'<b>a</b>  <i>c &amp; d</i>'|striptags
html|urlencode ~ {'a b': 'c&d', 'é': 1}|urlencode ~ 'a/b c'|urlencode
s|center(21) ~ '|' ~ s|indent ~ lines|indent(2, true) ~ lines|indent('> ', blank=true)
s|truncate(5) ~ s|truncate(5, true) ~ s|truncate(8, true, '~') ~ s|truncate(9, leeway=0) ~ s|truncate(2)
s|wordcount ~ u|wordcount
'The quick brown-fox jumps over the lazy dog'|wordwrap(10) ~ 'abcdefghij'|wordwrap(3)
'a b'|wordwrap(1, wrapstring='|')
'42'|int ~ '4.7'|int ~ 'x'|int ~ 'x'|int(-1) ~ '0x1f'|int(base=16) ~ 'ff'|int(0, 16) ~ ' 12 '|int ~ '1_0'|int
4.9|int ~ -4.9|int ~ true|int ~ none|int
'1.5'|float ~ 'x'|float ~ 'x'|float(2.0) ~ 'inf'|float ~ 'nan'|float ~ '1e3'|float ~ none|float ~ 3|float
1.5|round ~ 2.5|round ~ 2.675|round(2) ~ 42.55|round(1, 'floor') ~ 42.55|round(1, 'ceil') ~ 1234|round(-2)
5|round ~ 25|round(-1) ~ 15|round(-1)
1.5|round('x')
-3|abs ~ -3.5|abs ~ true|abs
'a'|abs
l|sum ~ l|min ~ l|max ~ rows|sum(attribute='age') ~ [[1], [2]]|sum(start=[]) ~ []|max is undefined
sl|min ~ sl|max ~ sl|min(case_sensitive=true) ~ rows|max(attribute='age')
l|sort ~ l|sort(reverse=true) ~ sl|sort ~ sl|sort(case_sensitive=true) ~ rows|sort(attribute='name')
ml|sort
d|dictsort ~ d|dictsort(true) ~ {'b': 1, 'a': 2}|dictsort(by='value') ~ d|dictsort(reverse=true)
d|dictsort(by='x')
d|dictsort(reverse=undef)
l|sort(reverse=2) ~ l|sort(reverse=false) ~ s.splitlines(0)
l|sort(reverse='a')
l|sort(reverse=none)
l|sort(3000000000)
s.splitlines(none)
sl|unique|list ~ sl|unique(case_sensitive=true)|list ~ rows|unique(attribute='age')|list
rows|groupby('age') ~ rows|groupby('nope', default='z')
rows|map(attribute='name')|join(', ') ~ rows|map(attribute='x', default='-')|list ~ sl|map('upper')|list
[1.5, 2.5]|map('round')|list ~ sl|map('replace', 'a', 'z')|list
rows|map('nope')|list
rows|map|list
l|select('odd')|list ~ l|reject('odd')|list ~ ml|select|list ~ l|select('gt', 1)|list ~ l|select('in', [1, 2])|list
rows|selectattr('age', 'gt', 26)|map(attribute='name')|list ~ rows|rejectattr('tags')|list
rows|selectattr('nope')|list
messages|selectattr('role', 'equalto', 'user')|list|length
l|select('nope')|list
l|batch(2)|list ~ l|batch(2, 'x')|list ~ range(7)|slice(3)|list ~ range(7)|slice(3, 'x')|list ~ l|batch(0)|list
d|items|list ~ undef|items|list
1|items|list
l|first ~ []|first ~ l|last ~ ''|last ~ d|first ~ d|last ~ l|map('string')|first
(l|map('string'))|last
l|join ~ l|join(',') ~ ml|join('-') ~ rows|join(',', attribute='name')
l|reverse|list ~ d|reverse|list ~ l|map('string')|reverse|list
1|reverse
1|list
l|attr('x') ~ d|attr('items') is callable ~ d|attr('a')
d|tojson ~ ml|tojson ~ u|tojson ~ u|tojson(ensure_ascii=true) ~ html|tojson
rows|tojson(indent=2)
rows[0]|tojson(indent=0) ~ []|tojson(indent=2) ~ {}|tojson(indent=2) ~ d|tojson(separators=(',', ':'))
{'b': 1, 'a': 2}|tojson(sort_keys=true) ~ [1]|tojson(indent='\t')
{1: 2, 1.5: 3, true: 4, none: 5}|tojson
{(1, 2): 3}|tojson
undef|tojson
range(3)|tojson
(1, 2)|tojson ~ 1e20|tojson ~ 0.1|tojson ~ 'a\x1f\x7f"\\/'|tojson
[1e400, -1e400]|tojson
1000|filesizeformat ~ 1|filesizeformat ~ 1500000|filesizeformat ~ 1024|filesizeformat(true)
1e30|filesizeformat ~ 0|filesizeformat
{'a': 1, 'b': none, 'c': '<'}|xmlattr
{'a b': 1}|xmlattr
'%s %s'|format(1, 'a') ~ '%(x)s'|format(x=1)
'%s'|format(1, x=2)
1 is odd ~ 2 is even ~ 9 is divisibleby 3 ~ 9 is divisibleby(2) ~ none is none ~ 1 is number ~ true is number
true is integer ~ 1.0 is float ~ 'a' is string
[] is sequence ~ {} is mapping ~ 'a' is iterable ~ 1 is iterable ~ range is callable ~ 1 is sameas 1
true is sameas true ~ 'a' is lower ~ 'A' is upper ~ '1' is lower
1 is eq 1 ~ 1 is ne(2) ~ 1 is lt 2 ~ 'a' is in 'abc' ~ 'trim' is filter ~ 'nope' is filter ~ 'odd' is test
1 is not odd ~ not 1 is odd
d.items() is sequence ~ d.items() is iterable ~ l|map('upper') is iterable ~ l|map('upper') is sequence
undef is sequence ~ undef is iterable ~ undef is callable
1 is foo
1|foo
1 if 0 else 2|foo
dict(a=1, b=2) ~ dict([('x', 1)]) ~ dict({'a': 1}, b=2) ~ dict()
dict(1)
namespace(a=1).a ~ namespace({'a': 2}).a ~ namespace().x
namespace(_x=1)._x
joiner('|')() ~ cycler(1, 2).next()
cycler()
lipsum
raise_exception('x')
strftime_now('%Y-%m-%d %H:%M %j %b %A')
foo.bar
range(3) ~ range(1, 3) ~ range(0, 9, 3)
[].__class__
''.__class__.__mro__
(1).real ~ (3).bit_length() ~ (2.0).is_integer()
1.__class__
l.0 ~ rows.0.name ~ d.a.b
s.0
'a' * 3 ~ 3 * 'a' ~ [0] * 2 ~ 'a' * -1
'a' * 1.5
'a' + 1
1 + none
[1] + (2,)
1 < 'a'
{} < {}
1 if 2 > 1 > 0 else 0
(1, 2)
1, 2
[1, 2,]
{'a': 1,}
(1,)
f.real
s[1:3, 0]
'\u00e9\x41\101\n\t\q\'' ~ "\"" ~ '\é'
'\x4'
'a
b'
[x for x in l]
lambda: 1
1 = 2
a b
(
)
'abc
1 +
* 1
not
x.
x[
x|
x is
1 is not
{1}
{1: }
f(a=1, 2)
f(*l, *l)
f(**d, **d)
dict(**{'a': 1}, **{'b': 2})
dict(**{'a': 1})
'{} {}'.format(*[1, 2])
range(*[1, 5])|list
dict(a=1, a=2)
$
a ? b
a && b
!a
a != b
a <> b
@
loop
caller
messages[-1]['role'] ~ messages[0].content ~ messages[2].content is none
messages[::-1]|map(attribute='role')|list
messages|length - 1
(messages|last).content
messages[2].tool_calls[0].function.arguments|tojson
messages[2].tool_calls[0]['function'].name
messages[1].content.split('<|im_end|>')[0]
messages[1:]|map(attribute='role')|join(',')
messages[0].content is string and messages[2].content is not string
rows|map(attribute='tags.0')|list
'</think>' in s and s.split('</think>')[-1].lstrip('\n')
""".strip("\n").split("\n")

TEMPLATES = ["{{ " + e + " }}" for e in EXPRESSIONS if e != "'a" and e != "b'"] + [
    "{% for a, in [[1]] %}{{ a }}{% endfor %}",
    "{% for x in 1, recursive %}{{ x }}{% endfor %}",
    "{% for x in l, recursive recursive %}{{ x }}{% endfor %}",
    "{% set a, = [1] %}{{ a }}",
    "{% for (a,) in [[1]] %}{{ a }}{% endfor %}",
    "",
    "\n",
    "a\n",
    "a\n\n",
    "a\r\nb\rc\r\n",
    "{{ 'a\nb' }}",
    "{{ 'a\r\nb' }}",
    "{% for x in l %}{{ x }}{% endfor %}",
    "{% for x in l %}{{ x }}{% else %}e{% endfor %}",
    "{% for x in [] %}{{ x }}{% else %}e{% endfor %}",
    "{% for x in l if x > 1 %}{{ loop.index }}{{ x }}{{ loop.length }}{% endfor %}",
    "{% for x in l if loop.index > 1 %}{{ x }}{% endfor %}",
    "{% for x in l %}{% for y in l %}{{ loop.index }}{% endfor %}{{ loop.index }}{% endfor %}",
    "{% for x in l %}{% set outer = loop %}{% for y in l %}{{ outer.index }}{{ loop.index }} {% endfor %}{% endfor %}",
    "{% for x in l %}{{ loop.index }} {{ loop.index0 }} {{ loop.revindex }} {{ loop.revindex0 }} {{ loop.first }}"
    " {{ loop.last }} {{ loop.length }} {{ loop.depth }} {{ loop.depth0 }}|{% endfor %}",
    "{% for x in l %}{{ loop.previtem }}-{{ loop.nextitem }} {% endfor %}",
    "{% for x in l %}{{ loop.previtem.x }}{% endfor %}",
    "{% for x in sl %}{{ loop.cycle('a', 'b') }}{{ loop.changed(x) }}{{ loop.changed(1) }}{% endfor %}",
    "{% for x in [1, 1, 2, 2, 1] %}{% if loop.changed(x) %}{{ x }}{% endif %}{% endfor %}",
    "{% for x in l %}{{ loop }}{% endfor %}",
    "{% for x in l|map('string') %}{{ loop.last }}{{ loop.length }}{{ loop.revindex }}{% endfor %}",
    "{% for x in l|map('string') %}{{ loop.nextitem }}{% endfor %}",
    "{% for k, v in d.items() %}{{ k }}={{ v }},{% endfor %}",
    "{% for k in d %}{{ k }}{% endfor %}",
    "{% for a, b in [[1, 2], (3, 4), 'xy'] %}{{ a }}{{ b }}{% endfor %}",
    "{% for a, b in [[1]] %}{% endfor %}",
    "{% for (a, b), c in [((1, 2), 3)] %}{{ a }}{{ b }}{{ c }}{% endfor %}",
    "{% for a, b in [1] %}{% endfor %}",
    "{% for c in u %}{{ c }}.{% endfor %}",
    "{% for x in 5 %}{% endfor %}",
    "{% for x in none %}{% endfor %}",
    "{% for x in undef %}{% else %}e{% endfor %}",
    "{% for x in l %}{% if x == 1 %}{% continue %}{% endif %}{{ x }}{% endfor %}",
    "{% for x in l %}{% if x == 1 %}{% break %}{% endif %}{{ x }}{% endfor %}",
    "{% for x in l %}{% break %}{% else %}e{% endfor %}",
    "{% for x in l %}{% continue %}{% else %}e{% endfor %}",
    "{% for x in l %}{% set y %}a{% break %}{% endset %}{% endfor %}{{ y }}",
    "{% for x in l %}{% with %}{% continue %}{% endwith %}{% endfor %}",
    "{% for x in l %}{% macro m() %}{% break %}{% endmacro %}{% endfor %}",
    "{% break %}",
    "{% if 1 %}{% continue %}{% endif %}",
    "{% for x in [1, [2, [3, 4]]] recursive %}{{ loop(x) if x is iterable else x }}{{ loop.depth }}{% endfor %}",
    "{% for x in l %}{{ loop(l) }}{% endfor %}",
    "{% for x in [[], [1]] recursive %}<{{ loop(x) if x is iterable else x }}>{% else %}none{% endfor %}",
    "{% set x = 1 %}{% for i in l %}{% set x = i %}{% endfor %}{{ x }}",
    "{% set x = 1 %}{% for i in l %}{{ x }}{% set x = i %}{{ x }} {% endfor %}",
    "{% for i in l %}{% set z2 = i %}{% endfor %}{{ z2 }}",
    "{% for i in l %}{% if loop.first %}{% set q = i %}{% endif %}{{ q }}{% endfor %}",
    "{% for i in l %}{% endfor %}{{ i }}",
    "{% for s in l %}{{ s }}{% endfor %}{{ s }}",
    "{% for loop in l %}{% endfor %}",
    "{% for x in l %}{% set loop = 1 %}{% endfor %}",
    "{% set loop = 5 %}{{ loop }}",
    "{% if 0 %}{% set x = 1 %}{% endif %}{{ x }}",
    "{% if 0 %}{% set s = 1 %}{% endif %}{{ s }}",
    "{% if 1 %}{% set s = 1 %}{% endif %}{{ s }}",
    "{{ s }}{% set s = 1 %}{{ s }}",
    "{% set s = s ~ '!' %}{{ s }}",
    "{% set s %}[{{ s }}]{% endset %}{{ s }}",
    "{% set a, b = 1, 2 %}{{ a }}{{ b }}",
    "{% set a, b = [1, 2] %}{{ a }}{{ b }}",
    "{% set a, b = 1 %}",
    "{% set a, b = 1, 2, 3 %}",
    "{% set (a, b) = (1, 2) %}{{ a }}{{ b }}",
    "{% set a = 1, 2 %}{{ a }}",
    "{% set 1 = 2 %}",
    "{% set true = 2 %}",
    "{% set a.b = 1 %}",
    "{% set a['b'] = 1 %}",
    "{% set a %}",
    "{% set a = %}",
    "{% set ns = namespace(a=1) %}{% set ns.a = 2 %}{% set ns.b = 3 %}{{ ns.a }}{{ ns.b }}{{ ns.c }}{{ ns }}",
    "{% set d.x = 1 %}",
    "{% set ns = namespace() %}{% set ns.a, ns.b = 1, 2 %}{{ ns.a }}{{ ns.b }}",
    "{% set ns = namespace(x=[]) %}{% for i in l %}{% set ns.x = ns.x + [i] %}{% endfor %}{{ ns.x }}",
    "{% set ns = namespace(a=1) %}{{ ns['a'] }}{{ ns['b'] }}{{ ns.a is defined }}{{ ns|tojson }}",
    "{% set ns = namespace(found=false) %}{% for i in l if not ns.found %}{% set ns.found = true %}{{ i }}{% endfor %}",
    "{% macro m(a, b=2) %}{{ a }}-{{ b }}{% endmacro %}{{ m(1) }} {{ m(1, 3) }} {{ m(b=1, a=2) }} {{ m() }}",
    "{% macro m(a) %}{{ a }}{% endmacro %}{{ m(1, 2) }}",
    "{% macro m(a) %}{{ a }}{% endmacro %}{{ m(b=2) }}",
    "{% macro m(a) %}{{ a }}{% endmacro %}{{ m(1, a=2) }}",
    "{% macro m() %}{{ varargs }}{{ kwargs }}{% endmacro %}{{ m(1, 2, x=3) }}",
    "{% macro m(a=1, b) %}{% endmacro %}",
    "{% macro m(a, a) %}{% endmacro %}",
    "{% macro m(a, b=a) %}{{ b }}{% endmacro %}{{ m(5) }}",
    "{% macro m(a=s) %}{{ a }}{% endmacro %}{{ m() }}",
    "{% macro m(a) %}{{ a is defined }}{% endmacro %}{{ m() }}",
    "{% macro m(a) %}{{ a.x }}{% endmacro %}{{ m() }}",
    "{% macro m() %}{{ s }}{% endmacro %}{{ m() }}",
    "{% macro m() %}{{ x }}{% endmacro %}{% set x = 1 %}{{ m() }}{% set x = 2 %}{{ m() }}",
    "{% macro m() %}{% set s = 1 %}{{ s }}{% endmacro %}{{ m() }}{{ s }}",
    "{% for i in l %}{% macro m() %}{{ i }}{% endmacro %}{{ m() }}{% endfor %}",
    "{{ m() }}{% macro m() %}x{% endmacro %}",
    "{% macro m(n) %}{{ n }}{% if n %}{{ m(n - 1) }}{% endif %}{% endmacro %}{{ m(3) }}",
    "{% macro a() %}{{ b() }}{% endmacro %}{% macro b() %}x{% endmacro %}{{ a() }}",
    "{% macro m(a, b=1) %}{{ caller is defined }}{% endmacro %}{{ m.name }}{{ m.arguments }}{{ m.catch_kwargs }}{"
    "{ m.catch_varargs }}{{ m.caller }}{{ m }}",
    "{% if 1 %}{% macro m() %}x{% endmacro %}{% endif %}{{ m() }}",
    "{% macro m() %}{{ i }}{% endmacro %}{% with i = 99 %}{{ m() }}{% endwith %}",
    "{% macro m() %}<{{ caller() }}>{% endmacro %}{% call m() %}x{{ s }}{% endcall %}",
    "{% macro m(l) %}{% for i in l %}{{ caller(i) }}{% endfor %}{% endmacro %}{% call(x) m(l) %}[{{ x }}]{% endcall %}",
    "{% macro m() %}x{% endmacro %}{% call m() %}y{% endcall %}",
    "{% macro m() %}{{ caller() }}{% endmacro %}{{ m() }}",
    "{% call x %}{% endcall %}",
    "{% call range(3) %}{% endcall %}",
    "{% macro m(caller) %}{{ caller() }}{% endmacro %}{% call m() %}x{% endcall %}",
    "{% macro m(caller=none) %}{{ caller() if caller else 'no' }}{% endmacro %}{{ m() }}{% call m() %}x{% endcall %}",
    "{% filter upper %}a{{ s }}{% endfilter %}",
    "{% filter replace('a', 'b')|upper %}a{% endfilter %}",
    "{% filter length %}a{% endfilter %}",
    "{% filter nope %}a{% endfilter %}",
    "{% set x | upper %}abc{% endset %}{{ x }}",
    "{% set x | length %}abc{% endset %}{{ x + 1 }}",
    "{% filter indent(2) %}a\nb{% endfilter %}",
    "{% with a = 1, b = 2 %}{{ a }}{{ b }}{% endwith %}{{ a }}",
    "{% set a = 5 %}{% with a = 1, b = a %}{{ a }}{{ b }}{% endwith %}{{ a }}",
    "{% with %}{% set q = 1 %}{{ q }}{% endwith %}{{ q }}",
    "{% with a = 1 %}{% set s = a %}{{ s }}{% endwith %}{{ s }}",
    "{% with a, b = (1, 2) %}{{ a }}{{ b }}{% endwith %}",
    "{% raw %}{{ x }}{% if %}{% endraw %}",
    "{% raw %}\n  a\n{% endraw %}\nb",
    "{%- raw -%}  a  {%- endraw -%}  b",
    "{% raw %}",
    "{% raw %}x",
    "{% endraw %}",
    "a {# c #} b",
    "a {#- c -#} b",
    "{# a\nb #}\nx",
    "{# unclosed",
    "{#",
    "{##}",
    "{#-#}x",
    "{#--#}x",
    "a\n  {# c #}\nb",
    "a\n  {#+ c +#}\nb",
    "  {% if 1 %}\n  a\n  {% endif %}\n  b",
    "  {%- if 1 -%}\n  a\n  {%- endif -%}\n  b",
    "  {%+ if 1 +%}\n  a\n  {%+ endif +%}\n  b",
    "a  {% if 1 %} b {% endif %}  c",
    "a\n\n  {{- s }}  \n{{ s -}}\n  b",
    "  {{ s }}\n",
    "\t{% set x = 1 %}\n\n{{ x }}",
    "a{% if 1 %}\n\nb{% endif %}",
    "{% if 1 -%}\n x {%- endif %}",
    "x {%- if 1 %} y {%- endif %} z",
    "\n  {% if 1 %}x{% endif %}",
    "{% if 1 %}x{% endif %}  {% if 1 %}y{% endif %}\n",
    "a\n {{ 1 }} {% if 1 %}\n{% endif %}",
    "{{1}}{{-1}}{{- 1}}{{+1}}{{ 1 +}}",
    "{{ {'a': {'b': 1}}['a']['b'] }}",
    "{{ {'a': {'b': 1}}}}",
    "{{ '}}' }}{{ '%}' }}{% if '%}' %}x{% endif %}",
    "{{ 1 }} }} %} #}",
    "{ { x } }",
    "{{{ 1 }}}",
    "{{ [1, 2][0] }}",
    "{% if (1) %}x{% endif %}",
    "{{",
    "{%",
    "{{ 1",
    "{% if 1",
    "{% if 1 %}",
    "{% endif %}",
    "{% else %}",
    "{% if %}{% endif %}",
    "{% if 1 %}{% endfor %}",
    "{% for %}{% endfor %}",
    "{% for x l %}{% endfor %}",
    "{% for x in %}{% endfor %}",
    "{% nope %}",
    "{% 1 %}",
    "{{ }}",
    "{% %}",
    "{% if 0 %}a{% elif 1 %}b{% else %}c{% endif %}",
    "{% if 0 %}a{% elif 0 %}b{% elif none %}c{% else %}d{% endif %}",
    "{% if l %}{% if not el %}x{% endif %}{% endif %}",
    "{% if 1: %}x{% endif %}",
    "{% for x in l: %}x{% endfor %}",
    "{% if undef %}x{% else %}y{% endif %}",
    "{% if undef.x %}x{% endif %}",
    "{% if 1 %}{{ 1|nope }}{% endif %}",
    "{% if 0 %}{{ 1|nope }}{% endif %}",
    "{% if 0 %}{% for x in l %}{{ 1|nope }}{% endfor %}{% endif %}",
    "{% if 0 %}{{ 1 is nope }}{% endif %}x",
    "{% print 1, 'a' %}",
    "{% print %}",
    "{% block a %}x{{ s }}{% endblock %}",
    "{% block a %}{% endblock a %}",
    "{% block a %}{% endblock b %}",
    "{% block a %}{% endblock %}{% block a %}{% endblock %}",
    "{% set q = 1 %}{% block a %}{{ q }}{% endblock %}",
    "{% for x in l %}{% block a %}{{ x }}{% endblock %}{% endfor %}",
    "{% for x in l %}{% block a scoped %}{{ x }}{{ loop.index }}{% endblock %}{% endfor %}",
    "{% block a-b %}{% endblock %}",
    "{% block a required %}{% endblock %}",
    "{% include 'x' %}",
    "{% include 'x' ignore missing %}",
    "{% import 'x' as y %}",
    "{% from 'x' import y %}",
    "{% extends 'x' %}",
    "{% if 0 %}{% include 'x' %}{% endif %}",
    "{% if 0 %}{% import 'x' as y with context %}{% from 'x' import a, b as c without context %}{% endif %}ok",
    "{% from 'x' import _y %}",
    "{% generation %}a{{ s }}{% endgeneration %}",
    "{% generation %}{% set s = 1 %}{{ s }}{% endgeneration %}{{ s }}",
    "{% for x in l %}{% generation %}{{ x }}{% endgeneration %}{% endfor %}",
    "{% for x in l %}{% generation %}{% break %}{% endgeneration %}{% endfor %}",
    "{%- generation -%} a {%- endgeneration -%}",
    "{% autoescape true %}{{ html }}{{ html|safe }}{% endautoescape %}{{ html }}",
    "{% do 1 %}",
    "{% trans %}{% endtrans %}",
    "{% set j = joiner(', ') %}{% for x in l %}{{ j() }}{{ x }}{% endfor %}",
    "{% set c = cycler('a', 'b') %}{{ c.next() }}{{ c.next() }}{{ c.next() }}{{ c.current }}{{ c.reset() }}{{ c.c"
    "urrent }}",
    "{% for g in rows|groupby('age') %}{{ g.grouper }}:{{ g.list|length }}{{ g[0] }}{% for n, xs in [g] %}{{ n }}"
    "{{ xs|map(attribute='name')|join('+') }}{% endfor %} {% endfor %}",
    "{% set x = l|map('string') %}{{ x|list }}{{ x|list }}",
    "{% set x = l|map('nope') %}ok",
    "{% set g = l|map('string') %}{% for x in g %}{{ x }}{% break %}{% endfor %}{{ g|list }}",
    "{% for m in messages %}{{ '<|' + m['role'] + '|>\\n' }}{% if m.content is string %}{{ m.content }}{% elif m."
    "content is none %}{{ m.tool_calls|tojson }}{% endif %}{{ '<|end|>\\n' }}{% endfor %}",
    "{% for m in messages %}{%- if loop.first and messages[0]['role'] != 'system' -%}x{%- endif -%}{{ m.role }}{{"
    " '\\n' if not loop.last }}{% endfor %}",
    "{%- for index in range(messages|length - 1, -1, -1) -%}{{ messages[index].role }},{%- endfor -%}",
    "{% set content = messages[0]['content'] if messages[0]['role'] == 'system' else '' %}{{ content }}",
    "{% if not tools is defined %}{% set tools = none %}{% endif %}{{ tools is none }}",
    "{% if tools is not none and tools is defined %}x{% endif %}",
    "{%- if tools is iterable and tools|length > 0 %}x{% endif %}",
    "{% if messages[0].role == 'system' %}{% set loop_messages = messages[1:] %}{% else %}{% set loop_messages = "
    "messages %}{% endif %}{{ loop_messages|length }}",
    "{{ raise_exception('Roles must alternate: ' ~ messages[0].role) }}",
    "{% set x = raise_exception('a') if 0 else 1 %}{{ x }}",
    "{{ '\\n'.join(rows|map(attribute='name')) }}",
    "{% set ns = namespace(is_first=true, out='') %}{% for m in messages %}{% if ns.is_first %}{% set ns.is_first"
    " = false %}{% else %}{% set ns.out = ns.out ~ ',' %}{% endif %}{% set ns.out = ns.out ~ m.role %}{% endfor %"
    "}{{ ns.out }}",
    "{% macro render(x, depth=0) %}{% if x is mapping %}{ {%- for k, v in x.items() %}{{ k }}:"
    "{{ render(v, depth + 1) }}"
    '{% if not loop.last %},{% endif %}{% endfor -%} }{% elif x is string %}"{{ x }}"'
    "{% elif x is iterable %}[{% for v in x %}{{ render(v) }};{% endfor %}]{% else %}{{ x }}"
    "{% endif %}{% endmacro %}{{ render(messages) }}",
]
