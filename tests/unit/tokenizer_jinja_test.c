/* The template language: what it computes (against jinja2, whose answers stand here), what it
 * refuses when a template is loaded, and that no template takes more than its share.
 * tests/e2e/test_templates.py renders real templates beside jinja2. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdio.h>

#include "tokenizer-svc/jinja.h"

/* messages: a user's "Hi" and an assistant's "é<b>"; n 3; f 0.5; d {"b": 1, "a": [2, "x"]}; yes
 * true; nil none. */
static struct jinja_val context(jinja_run *r)
{
    struct jinja_val names = jinja_dict_new(r), list = jinja_list_new(r), d = jinja_dict_new(r),
                     a = jinja_list_new(r);
    static const char *const TURNS[][2] = {{"user", "Hi"}, {"assistant", "\xc3\xa9<b>"}};
    for (size_t i = 0; i < ARRAY_LEN(TURNS); i++) {
        struct jinja_val m = jinja_dict_new(r);
        jinja_dict_set(r, m, SLICE_LIT("role"), jinja_text(r, slice_str(TURNS[i][0]), 0));
        jinja_dict_set(r, m, SLICE_LIT("content"), jinja_text(r, slice_str(TURNS[i][1]), 1));
        jinja_list_add(r, list, m);
    }
    jinja_list_add(r, a, jinja_int(2));
    jinja_list_add(r, a, jinja_text(r, SLICE_LIT("x"), 0));
    jinja_dict_set(r, d, SLICE_LIT("b"), jinja_int(1));
    jinja_dict_set(r, d, SLICE_LIT("a"), a);
    jinja_dict_set(r, names, SLICE_LIT("messages"), list);
    jinja_dict_set(r, names, SLICE_LIT("d"), d);
    jinja_dict_set(r, names, SLICE_LIT("n"), jinja_int(3));
    jinja_dict_set(r, names, SLICE_LIT("f"), jinja_float(0.5));
    jinja_dict_set(r, names, SLICE_LIT("yes"), jinja_bool(true));
    jinja_dict_set(r, names, SLICE_LIT("nil"), (struct jinja_val){.kind = JINJA_NONE});
    return names;
}

static int render(const char *template, buf *out, struct why *w)
{
    jinja *j;
    struct jinja_str s;
    buf_reset(out);
    int e = jinja_new(slice_str(template), &j, w);
    if (e < 0)
        return e;
    jinja_run *r = jinja_run_new(j, 1767225600); /* 2026-01-01 */
    e = jinja_render(r, context(r), &s, w);
    if (e >= 0)
        buf_put(out, s.p, s.n);
    jinja_run_free(r);
    jinja_free(j);
    return e;
}

static void computes_what_jinja2_does(void **state)
{
    (void)state;
    static const char *const CASES[][2] = {
        /* white space */
        {"a\n{% if yes %}\nb\n{% endif %}\nc\n", "a\nb\nc"},
        {"  {% if yes %}x{% endif %}  y", "x  y"},
        {" {%+ if yes %}x{% endif +%}\ny", " x\ny"},
        {"a  {{- ' b ' -}}  c", "a b c"},
        {"{# c #}\nx{#- c -#} y", "xy"},
        {"{{ 'a' }}\nb", "a\nb"},
        {"a\r\nb\r\n", "a\nb"},
        /* values */
        {"{{ 1 }} {{ 1.0 }} {{ 1e20 }} {{ 0.1 + 0.2 }} {{ 1_000 }}",
         "1 1.0 1e+20 0.30000000000000004 1000"},
        {"{{ true }} {{ None }} {{ nothing }}|", "True None |"},
        {"{{ [1, 'a', \"it's\", none] }} {{ {'a': (1,), 'b': ()} }}",
         "[1, 'a', \"it's\", None] {'a': (1,), 'b': ()}"},
        {"{{ 'a\\n\\u00e9\\x41\\'' 'b' }}", "a\n\xc3\xa9"
                                            "A'b"},
        {"{{ d }} {{ d.b }} {{ d['a'][1] }} {{ d.nope }} {{ d.items() | list }}",
         "{'b': 1, 'a': [2, 'x']} 1 x  [('b', 1), ('a', [2, 'x'])]"},
        /* operators */
        {"{{ 1 + 2 * 3 - -4 }} {{ 7 // 2 }} {{ -7 // 2 }} {{ -7 % 3 }} {{ 7 / 2 }} {{ 2 ** 3 ** 1 "
         "}}",
         "11 3 -4 2 3.5 8"},
        {"{{ 'a' ~ 1 ~ none }} {{ 'ab' * 2 }} {{ [1] + [2] }} {{ 'a' + 'b' }}",
         "a1None abab [1, 2] ab"},
        {"{{ 1 < 2 < 3 }} {{ 1 == 1.0 }} {{ 'a' in 'cat' }} {{ 3 not in [1, 2] }} {{ 'b' in d }}",
         "True True True True True"},
        {"{{ not yes or n > 2 and nil is none }} {{ 'x' or 'y' }} {{ 0 and 1 }}", "True x 0"},
        {"{{ 'a' if yes }}{{ 'b' if not yes }}{{ 'c' if nil else 'd' if n == 4 else 'e' }}", "ae"},
        {"{{ 'abcde'[1:3] }} {{ 'abc'[::-1] }} {{ [1,2,3][-1] }} {{ [1,2,3][:-1] }} {{ "
         "messages[1].content[0] }}",
         "bc cba 3 [1, 2] \xc3\xa9"},
        /* statements */
        {"{% for m in messages %}{{ loop.index }}{{ m.role }}{% if not loop.last %},{% endif %}{% "
         "endfor %}",
         "1user,2assistant"},
        {"{% for k, v in d.items() %}{{ k }}={{ v }};{% else %}none{% endfor %}",
         "b=1;a=[2, 'x'];"},
        {"{% for x in [] %}x{% else %}empty{% endfor %}", "empty"},
        {"{% for x in range(9) if x is odd %}{% if x > 5 %}{% break %}{% endif %}{{ x }}{{ "
         "loop.length }} {% endfor %}",
         "14 34 54 "},
        {"{% for x in [1,2,3] %}{% if x == 2 %}{% continue %}{% endif %}{{ x }}{% endfor %}", "13"},
        {"{% set x = 1 %}{% for i in [1,2] %}{% set x = 5 %}{% endfor %}{{ x }}", "1"},
        {"{% set ns = namespace(x=1) %}{% for i in [1,2] %}{% set ns.x = ns.x + i %}{% endfor %}{{ "
         "ns.x }}",
         "4"},
        {"{% set a, b = 1, 2 %}{{ a }}{{ b }}{% set c %}[{{ a }}]{% endset %}{{ c | upper }}",
         "12[1]"},
        {"{% macro f(a, b='B') %}{{ a }}{{ b }}{% endmacro %}{{ f(1) }} {{ f(1, b=2) }} {{ f() }}",
         "1B 12 B"},
        {"{% macro f(n) %}{{ n }}{% if n > 0 %}{{ f(n - 1) }}{% endif %}{% endmacro %}{{ f(3) }}",
         "3210"},
        {"{% filter upper %}a{{ 'b' }}{% endfilter %}{% generation %}c{% endgeneration %}", "ABc"},
        {"{% for i in 'ab' %}{{ loop.previtem }}{{ i }}{{ loop.nextitem }}{{ loop.revindex0 }} {% "
         "endfor %}",
         "ab1 ab0 "},
        /* filters and tests */
        {"{{ '  x ' | trim }}|{{ 'xxaxx'.strip('x') }}|{{ ' a b  c '.split() }}|{{ "
         "'a,b,c'.split(',', 1) }}",
         "x|a|['a', 'b', 'c']|['a', 'b,c']"},
        {"{{ 'hello world' | title }} {{ 'aBC' | capitalize }} {{ 'a-b' | replace('-', '+') }}",
         "Hello World Abc a+b"},
        {"{{ messages | map(attribute='role') | join(', ') }} {{ [3,1,2] | sort | first }} {{ "
         "[1,2] | last }}",
         "user, assistant 1 2"},
        {"{{ messages | selectattr('role', 'equalto', 'user') | list | length }} {{ [0,1,2] | "
         "select | list }}",
         "1 [1, 2]"},
        {"{{ messages | rejectattr('role', 'in', ['user']) | map(attribute='content') | first }}",
         "\xc3\xa9<b>"},
        {"{{ x | default('d') }} {{ '' | default('d', true) }} {{ nil | d('z') }} {{ '7' | int + 1 "
         "}} {{ 'q' | int(5) }}",
         "d d None 8 5"},
        {"{{ d | tojson }} {{ 'a\"\\n\xc3\xa9' | tojson }} {{ [] | tojson }}",
         "{\"b\": 1, \"a\": [2, \"x\"]} \"a\\\"\\n\xc3\xa9\" []"},
        {"{{ d | tojson(indent=2) }}", "{\n  \"b\": 1,\n  \"a\": [\n    2,\n    \"x\"\n  ]\n}"},
        {"{{ d | tojson(separators=(',', ':'), sort_keys=true) }} {{ '\xc3\xa9\xf0\x9f\x98\x80' | "
         "tojson(ensure_ascii=true) }}",
         "{\"a\":[2,\"x\"],\"b\":1} \"\\u00e9\\ud83d\\ude00\""},
        {"{{ d is mapping }} {{ 'a' is string }} {{ x is defined }} {{ nil is not none }} {{ 4 is "
         "divisibleby 2 }} {{ yes is true }}",
         "True True False False True True"},
        {"{{ d | dictsort }} {{ [1,2,1] | unique | list }} {{ 'abc' | list }} {{ [1,2] | sum }}",
         "[('a', [2, 'x']), ('b', 1)] [1, 2] ['a', 'b', 'c'] 3"},
        {"{{ 'a\nb' | indent(2) }} {{ 'x{}y{}'.format(1, 'z') }} {{ 'ab'.startswith(('x', 'a')) }}",
         "a\n  b x1yz True"},
        {"{{ strftime_now('%d %b %Y') }} {{ dict(a=1).a }} {{ d.get('q', 4) }} {{ d.keys() | list "
         "}}",
         "01 Jan 2026 1 4 ['b', 'a']"},
        {"{{ '<&>' | e }} {{ 3.7 | int }} {{ -2 | abs }} {{ 2.345 | round(2) }}",
         "&lt;&amp;&gt; 3 2 2.35"},
    };
    buf out = {0};
    for (size_t i = 0; i < ARRAY_LEN(CASES); i++) {
        struct why w = {.text = ""};
        if (render(CASES[i][0], &out, &w) < 0)
            fail_msg("%s: %s", CASES[i][0], w.text);
        if (!slice_eq_str(buf_slice(&out), CASES[i][1]))
            fail_msg("%s\n gave %s\n not  %s", CASES[i][0], buf_cstr(&out), CASES[i][1]);
    }
    buf_clear(&out);
}

static void refused(const char *template, int e, const char *says)
{
    buf out = {0};
    struct why w = {.text = ""};
    int got = render(template, &out, &w);
    if (got != e || !strstr(w.text, says))
        fail_msg("%.60s: %d \"%s\", not %d \"%s\"", template, got, w.text, e, says);
    buf_clear(&out);
}

static void unknown_things_are_refused_at_load_with_their_line(void **state)
{
    (void)state;
    refused("\n\n{% include 'x' %}", ERR_UNSUPPORTED,
            "line 3 of the chat template: there is no block include");
    refused("{{ 1 |\n magic }}", ERR_UNSUPPORTED,
            "line 2 of the chat template: there is no filter magic");
    refused("{{ 1 is magic }}", ERR_UNSUPPORTED, "there is no test magic");
    refused("{% if 1 %}\nx", ERR_INVALID,
            "line 1 of the chat template: a block does not end: there is no elif");
    refused("{{ 'x }}", ERR_INVALID, "a text does not end");
    refused("{{ x ", ERR_INVALID, "a tag does not end");
    refused("{# x", ERR_INVALID, "a comment does not end");
    refused("{{ 1 + }}", ERR_INVALID, "a value is expected, not }}");
    refused("{{ a b }}", ERR_INVALID, "}} is expected, not b");
    refused("{{ f(a=1, 2) }}", ERR_INVALID, "an argument without a name");
    refused("{{ f(*a) }}", ERR_UNSUPPORTED, "arguments from a list");
    refused("{{ 99999999999999999999 }}", ERR_INVALID, "a number that does not fit");
    refused("{{ '\\ud800' }}", ERR_INVALID, "an escape that is no character");
    refused("{{ $ }}", ERR_INVALID, "a character that means nothing here: $");
    refused("{% break %}", ERR_INVALID, "outside of a loop");
    refused("{% for x in y recursive %}{% endfor %}", ERR_UNSUPPORTED, "recursive");
    refused("{% endif %}", ERR_UNSUPPORTED, "there is no block endif");
    refused("\xff", ERR_INVALID, "not UTF-8");
}

static void what_cannot_be_computed_is_said_with_its_line(void **state)
{
    (void)state;
    refused("{{ raise_exception('no system here') }}", ERR_INVALID, "refuses: no system here");
    refused("\n{{ x.y.z }}", ERR_INVALID, "line 2: 'y' of an undefined value");
    refused("{{ 1 + 'a' }}", ERR_INVALID, "a number and a text cannot be reckoned with");
    refused("{{ 1 / 0 }}{{ 1 // 0 }}", ERR_INVALID, "a division by 0");
    refused("{{ 9223372036854775807 + 1 }}", ERR_TOO_BIG, "beyond 64 bits");
    refused("{{ (-9223372036854775807 - 1) // -1 }}", ERR_TOO_BIG, "beyond 64 bits");
    refused("{{ 1 < 'a' }}", ERR_INVALID, "have no order");
    refused("{% for x in 5 %}{% endfor %}", ERR_INVALID, "a number is nothing to go through");
    refused("{{ nope() }}", ERR_INVALID, "there is no function 'nope'");
    refused("{{ d.b() }}", ERR_INVALID, "a number cannot be called");
    refused("{{ messages.append(1) }}", ERR_INVALID, "a list cannot be changed");
    refused("{% set d.b = 1 %}", ERR_INVALID, "only members of a namespace");
    refused("{% set a, b = [1] %}", ERR_INVALID, "1 values for 2 names");
    refused("{{ range }}", ERR_INVALID, "a function is written out");
    refused("{{ {[1]: 2} }}", ERR_INVALID, "a list cannot be a key");
    refused("{{ 'x'.split('') }}", ERR_INVALID, "an empty text");
}

static void repeat(buf *b, const char *s, size_t n)
{
    for (size_t i = 0; i < n; i++)
        buf_put_str(b, s);
}

static void no_template_takes_more_than_its_share(void **state)
{
    (void)state;
    static const char *const DEEP[][2] = {{"(", ")"},    {"[", "]"},  {"-", ""},     {"not ", ""},
                                          {"1 if ", ""}, {"a.b", ""}, {"1 | e", ""}, {"{1:", "}"},
                                          {"f(", ")"},   {"x[", "]"}};
    refused("{% for a in range(100000) %}{% for b in range(100000) %}{% endfor %}{% endfor %}",
            ERR_TOO_BIG, "steps");
    refused("{{ range(100001) }}", ERR_TOO_BIG, "a range of more than 100000");
    refused("{{ range(9223372036854775807, -9223372036854775807, -9223372036854775807) | length "
            "}}{{ range(1, 9, 0) }}",
            ERR_INVALID, "a step of 0");
    refused("{{ 'x' * 100000000 }}", ERR_TOO_BIG, "");
    refused("{% set ns = namespace(s='xxxxxxxx') %}{% for i in range(60) %}{% set ns.s = ns.s + "
            "ns.s %}{% endfor %}",
            ERR_TOO_BIG, "");
    refused("{% set ns = namespace(l=[1]) %}{% for i in range(60) %}{% set ns.l = ns.l + ns.l %}{% "
            "endfor %}",
            ERR_TOO_BIG, "");
    refused("{% set ns = namespace(l=[]) %}{% for i in range(99) %}{% set ns.l = [ns.l] %}{% "
            "endfor %}{{ ns.l }}",
            ERR_TOO_BIG, "nested");
    refused("{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}", ERR_TOO_BIG, "call each other");
    refused("{% macro f(n) %}{% for i in range(9) %}{{ f(n) if n < 99 }}{% endfor %}{% endmacro "
            "%}{{ f(1) }}",
            ERR_TOO_BIG, "call each other");
    refused("{{ 'aaaaaaaaaaaaaaaaaaaa'.replace('a', 'x' * 1000000) }}", ERR_TOO_BIG,
            "a text of more than");
    for (size_t i = 0; i < ARRAY_LEN(DEEP); i++) {
        buf b = {0};
        buf_put_str(&b, "{{ ");
        repeat(&b, DEEP[i][0], 5000);
        buf_put_str(&b, "1");
        repeat(&b, DEEP[i][1], 5000);
        buf_put_str(&b, " }}");
        struct why w = {.text = ""};
        buf out = {0};
        assert_true(render(buf_cstr(&b), &out, &w) < 0);
        assert_true(w.text[0] != 0);
        buf_clear(&out);
        buf_clear(&b);
    }
    buf b = {0};
    repeat(&b, "{% if 1 %}", 5000);
    refused(buf_cstr(&b), ERR_TOO_BIG, "nested too deeply");
    buf_reset(&b);
    repeat(&b, "{% if 1 %}{% elif 2 %}", 1);
    repeat(&b, "{% elif 2 %}", 5000);
    refused(buf_cstr(&b), ERR_TOO_BIG, "nested too deeply");
    buf_reset(&b);
    repeat(&b, "{{1}}", 30000);
    refused(buf_cstr(&b), ERR_TOO_BIG, "more words than");
    buf_reset(&b);
    repeat(&b, "x", JINJA_SOURCE_MAX + 1);
    refused(buf_cstr(&b), ERR_TOO_BIG, "at most 262144");
    buf_clear(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(computes_what_jinja2_does),
        cmocka_unit_test(unknown_things_are_refused_at_load_with_their_line),
        cmocka_unit_test(what_cannot_be_computed_is_said_with_its_line),
        cmocka_unit_test(no_template_takes_more_than_its_share),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
