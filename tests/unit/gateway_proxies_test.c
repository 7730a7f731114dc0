/* Whose X-Forwarded-For is believed, and what is made of it. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>
#include <arpa/inet.h>

#include "gateway/proxies.h"

static proxies *made(const char *list)
{
    proxies *p;
    struct why w;
    if (proxies_new(list, &p, &w) < 0)
        fail_msg("%s", w.text);
    return p;
}

/* The client of a connection from `peer`, in hex. */
static const char *client(const proxies *p, const char *peer, const char *forwarded)
{
    static char hex[2 * CLIENT_BYTES_MAX + 1];
    uint8_t bytes[16], out[CLIENT_BYTES_MAX];
    bool v6 = strchr(peer, ':');
    assert_int_equal(inet_pton(v6 ? AF_INET6 : AF_INET, peer, bytes), 1);
    size_t n =
        proxies_client(p, (slice){(const char *)bytes, v6 ? 16 : 4}, slice_str(forwarded), out);
    hex_encode(out, n, hex);
    return hex;
}

static void nobody_is_believed_by_default(void **state UNUSED)
{
    assert_null(made(NULL));
    assert_null(made(" "));
    assert_string_equal(client(NULL, "192.0.2.1", "198.51.100.1"), "c0000201");
    assert_string_equal(client(NULL, "2001:db8::1", ""), "20010db800000000"); /* a house */
    assert_string_equal(client(NULL, "::ffff:192.0.2.1", ""), "c0000201"); /* the same as over v4 */
    uint8_t out[CLIENT_BYTES_MAX];
    assert_int_equal(proxies_client(NULL, (slice){0}, slice_str("1.2.3.4"), out), 0);
}

static void the_last_that_is_none_of_ours(void **state UNUSED)
{
    proxies *p = made("10.0.0.0/8, 192.0.2.7,fd00::/9, ::1");
    assert_string_equal(client(p, "10.1.2.3", "198.51.100.1"), "c6336401");
    assert_string_equal(client(p, "10.1.2.3", "6.6.6.6, 198.51.100.1 , 192.0.2.7"), "c6336401");
    assert_string_equal(client(p, "192.0.2.8", "198.51.100.1"), "c0000208"); /* a stranger */
    assert_string_equal(client(p, "11.0.0.1", "198.51.100.1"), "0b000001");
    assert_string_equal(client(p, "fd7f::1", "198.51.100.1:4711"), "c6336401");
    assert_string_equal(client(p, "fd80::1", "198.51.100.1"), "fd80000000000000");
    assert_string_equal(client(p, "::1", "[2001:db8:1:2:3::4]:80"), "20010db800010002");
    assert_string_equal(client(p, "::1", "2001:db8:1:2:3::4"), "20010db800010002");
    assert_string_equal(client(p, "::ffff:10.1.1.1", "198.51.100.1"), "c6336401");
    assert_string_equal(client(p, "10.1.2.3", ""), "0a010203"); /* nothing said */
    assert_string_equal(client(p, "10.1.2.3", "10.9.9.9"), "0a090909");
    proxies_free(p);
}

static void what_is_no_address_ends_it(void **state UNUSED)
{
    proxies *p = made("10.0.0.0/8");
    assert_string_equal(client(p, "10.1.2.3", "198.51.100.1, unknown"), "0a010203");
    assert_string_equal(client(p, "10.1.2.3", "198.51.100.1, unknown, 10.7.7.7"), "0a070707");
    assert_string_equal(client(p, "10.1.2.3", ",,,"), "0a010203");
    assert_string_equal(client(p, "10.1.2.3", "[::1"), "0a010203");
    assert_string_equal(client(p, "10.1.2.3", "1.2.3.4.5"), "0a010203");
    buf many = {0};
    for (int i = 0; i < 10000; i++)
        buf_put_str(&many, i ? ",10.0.0.1" : "198.51.100.1");
    assert_string_equal(client(p, "10.1.2.3", buf_cstr(&many)),
                        "0a000001"); /* not walked for ever */
    buf_clear(&many);
    proxies_free(p);
}

static void lists(void **state UNUSED)
{
    static const char *const BAD[] = {"10.0.0.0/33", "fd00::/129", "10.0.0.0/", "10.0.0.0/x",
                                      "haproxy",     "10.0.0",     "/8"};
    proxies *p;
    struct why w;
    for (size_t i = 0; i < ARRAY_LEN(BAD); i++) {
        assert_int_equal(proxies_new(BAD[i], &p, &w), ERR_INVALID);
        assert_string_equal(w.field, "trusted-proxies");
        assert_null(p);
    }
    buf many = {0};
    for (int i = 0; i < PROXIES_MAX; i++)
        buf_put_str(&many, "10.0.0.1,");
    proxies_free(made(buf_cstr(&many)));
    buf_put_str(&many, "10.0.0.1");
    assert_int_equal(proxies_new(buf_cstr(&many), &p, &w), ERR_TOO_BIG);
    buf_clear(&many);
    p = made("0.0.0.0/0");
    assert_string_equal(client(p, "203.0.113.9", "198.51.100.1"), "c6336401");
    assert_string_equal(client(p, "2001:db8::1", "198.51.100.1"), "20010db800000000");
    proxies_free(p);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(nobody_is_believed_by_default),
        cmocka_unit_test(the_last_that_is_none_of_ours),
        cmocka_unit_test(what_is_no_address_ends_it),
        cmocka_unit_test(lists),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
