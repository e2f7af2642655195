#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>

#include "head_of.h"

#include "http/accept.h"

#define AE "Accept-Encoding: "

static const struct {
    const char *fields;
    const char *coding;
    unsigned weight;
    unsigned identity;
} fields[] = {
    {"", "gzip", 0, 1000},
    {"Accept: gzip\nTE: gzip", "gzip", 0, 1000},
    {"Accept-Encoding:", "gzip", 0, 1000},
    {AE "gzip", "gzip", 1000, 1000},
    {"aCCEPT-eNCODING: gzip", "gzip", 1000, 1000},
    {AE "gzip", "br", 0, 1000},
    {AE "GZip", "gzip", 1000, 1000},
    {AE "gzip", "GZIP", 1000, 1000},
    {AE "gzip, deflate, br, zstd", "br", 1000, 1000},
    {AE "gzip, deflate, br, zstd", "zstd", 1000, 1000},
    {AE "gzip,deflate,br,zstd", "zstd", 1000, 1000},
    {AE "gzip", "gzi", 0, 1000},
    {AE "gzi", "gzip", 0, 1000},
    {AE "gzipped", "gzip", 0, 1000},

    /* x-gzip: RFC 9110 section 8.4.1.3 */
    {AE "x-gzip", "gzip", 1000, 1000},
    {AE "X-GZIP;q=0.3", "gzip", 300, 1000},
    {AE "gzip", "x-gzip", 1000, 1000},
    {AE "x-br", "br", 0, 1000},
    {AE "x-gzip;q=0, *", "gzip", 0, 1000},

    /* the examples of section 12.5.3 */
    {AE "compress, gzip", "gzip", 1000, 1000},
    {AE "*", "gzip", 1000, 1000},
    {AE "compress;q=0.5, gzip;q=1.0", "gzip", 1000, 1000},
    {AE "compress;q=0.5, gzip;q=1.0", "compress", 500, 1000},
    {AE "gzip;q=1.0, identity; q=0.5, *;q=0", "gzip", 1000, 500},
    {AE "gzip;q=1.0, identity; q=0.5, *;q=0", "br", 0, 500},

    /* "*" and identity */
    {AE "*;q=0", "gzip", 0, 0},
    {AE "*;q=0.000", "gzip", 0, 0},
    {AE "*;q=0, gzip", "gzip", 1000, 0},
    {AE "gzip, *;q=0", "br", 0, 0},
    {AE "*;q=0.5", "br", 500, 500},
    {AE "br;q=0.2, *;q=0.5", "br", 200, 500},
    {AE "*;q=0.5, br;q=0", "br", 0, 500},
    {AE "identity", "gzip", 0, 1000},
    {AE "identity;q=0", "gzip", 0, 0},
    {AE "IDENTITY;q=0", "gzip", 0, 0},
    {AE "identity;q=0, *", "gzip", 1000, 0},
    {AE "identity;q=0.1, *;q=0", "gzip", 0, 100},
    {AE "*;q=0, identity", "gzip", 0, 1000},
    {AE "gzip;q=0", "gzip", 0, 1000},
    {AE "gzip;q=0, *", "gzip", 0, 1000},
    {AE "**", "gzip", 0, 1000},
    {AE "*gzip", "gzip", 0, 1000},
    {AE "x-identity;q=0", "gzip", 0, 1000},

    /* the list: section 5.6.1 */
    {AE ",, ,\tgzip ,,br;q=0.5,", "br", 500, 1000},
    {AE "br\nHost: a\n" AE "gzip;q=0.5", "gzip", 500, 1000},
    {AE "br\n" AE "identity;q=0", "gzip", 0, 0},
    {AE "\n" AE "gzip", "gzip", 1000, 1000},
    {AE ",", "gzip", 0, 1000},
    {AE "gzip;q=0,5", "gzip", 0, 1000}, /* a comma is the end, whatever the writer meant */
    {AE "gzip;q=1,5", "gzip", 1000, 1000},

    /* said twice: the least */
    {AE "gzip, gzip;q=0", "gzip", 0, 1000},
    {AE "gzip;q=0, gzip", "gzip", 0, 1000},
    {AE "gzip;q=0.7, x-gzip;q=0.3, gzip", "gzip", 300, 1000},
    {AE "gzip\n" AE "gzip;q=0.1", "gzip", 100, 1000},
    {AE "*, *;q=0", "gzip", 0, 0},
    {AE "*;q=0, *", "gzip", 0, 0},
    {AE "identity;q=0.9, identity;q=0.8", "gzip", 0, 800},

    /* white space: weight = OWS ";" OWS "q=" qvalue */
    {AE "gzip;q=0.5", "gzip", 500, 1000},
    {AE "gzip ; q=0.5", "gzip", 500, 1000},
    {AE "gzip\t;\t q=0.5\t, br", "gzip", 500, 1000},
    {AE "gzip;Q=0.5", "gzip", 500, 1000},
    {AE "gzip; q =0.5", "gzip", 0, 1000},
    {AE "gzip;q= 0.5", "gzip", 0, 1000},
    {AE "gzip;q=0. 5", "gzip", 0, 1000},

    /* outside the grammar: the member does not count */
    {AE "gzip;", "gzip", 0, 1000},
    {AE "gzip;q", "gzip", 0, 1000},
    {AE "gzip;q=", "gzip", 0, 1000},
    {AE "gzip;0.5", "gzip", 0, 1000},
    {AE "gzip q=0.5", "gzip", 0, 1000},
    {AE "gzip=1", "gzip", 0, 1000},
    {AE "gzip;level=9", "gzip", 0, 1000},
    {AE "gzip;q=0.5;level=9", "gzip", 0, 1000},
    {AE "gzip;level=9;q=0.5", "gzip", 0, 1000},
    {AE "gzip;q=0.5;q=0.6", "gzip", 0, 1000},
    {AE "gzip;;q=0.5", "gzip", 0, 1000},
    {AE "gzip;qq=0.5", "gzip", 0, 1000},
    {AE "gzip;q=\"0.5\"", "gzip", 0, 1000},
    {AE "\"gzip\"", "gzip", 0, 1000},
    {AE "gzip br", "gzip", 0, 1000},
    {AE "gzip/1", "gzip", 0, 1000},
    {AE "gzip/q=0.5", "gzip", 0, 1000},
    {AE ";q=1", "gzip", 0, 1000},
    {AE "gzip;q=2, *;q=0.4", "gzip", 400, 400},
    {AE "gzip;q=2, gzip;q=0.4", "gzip", 400, 1000},
    {AE "gzip;q=0.4, gzip;q=2", "gzip", 400, 1000},
    {AE "identity;q=x, *;q=0", "gzip", 0, 0},
    {AE "*;q=1.1", "gzip", 0, 1000},
    {AE "*;q=-0", "gzip", 0, 1000},
};

static void test_fields(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof fields / sizeof fields[0]; i++) {
        const struct head *head = head_of(fields[i].fields);
        unsigned weight = accept_encoding(head, span_of(fields[i].coding)), identity = accept_identity(head);

        if (weight != fields[i].weight || identity != fields[i].identity)
            fail_msg("%s\n%s: %u, identity: %u", fields[i].fields, fields[i].coding, weight, identity);
    }
}

/* RFC 9110 section 12.4.2; ~0U: no qvalue */
static const struct {
    const char *text;
    unsigned weight;
} qvalues[] = {
    {"0", 0},
    {"0.", 0},
    {"0.0", 0},
    {"0.00", 0},
    {"0.000", 0},
    {"0.001", 1},
    {"0.01", 10},
    {"0.1", 100},
    {"0.5", 500},
    {"0.50", 500},
    {"0.12", 120},
    {"0.123", 123},
    {"0.999", 999},
    {"1", 1000},
    {"1.", 1000},
    {"1.0", 1000},
    {"1.00", 1000},
    {"1.000", 1000},

    {"", ~0U},
    {".", ~0U},
    {".5", ~0U},
    {"0.0000", ~0U},
    {"0.1234", ~0U},
    {"1.0000", ~0U},
    {"1.001", ~0U},
    {"1.01", ~0U},
    {"1.1", ~0U},
    {"2", ~0U},
    {"9.999", ~0U},
    {"00", ~0U},
    {"01", ~0U},
    {"10", ~0U},
    {"1000", ~0U},
    {"00.5", ~0U},

    {"0.5.", ~0U},
    {"0..5", ~0U},
    {"-0", ~0U},
    {"-1", ~0U},
    {"+1", ~0U},
    {"0.-1", ~0U},
    {"0.5x", ~0U},
    {"x", ~0U},
    {"1e0", ~0U},
    {"0x1", ~0U},
    {"nan", ~0U},
    {"0.5 0", ~0U},
    {"\xd9\xa1", ~0U},
    {"1.000000000000000000000000000000", ~0U},
    {"99999999999999999999999999999999", ~0U},
};

static void test_qvalues(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof qvalues / sizeof qvalues[0]; i++) {
        char text[80];
        unsigned identity;

        snprintf(text, sizeof text, AE "identity;q=%s", qvalues[i].text);
        identity = accept_identity(head_of(text));
        if (identity != (qvalues[i].weight == ~0U ? 1000 : qvalues[i].weight))
            fail_msg("%s: %u", text, identity);
        snprintf(text, sizeof text, AE "br;q=%s", qvalues[i].text);
        if (accept_encoding(head_of(text), SPAN("br")) != (qvalues[i].weight == ~0U ? 0 : qvalues[i].weight))
            fail_msg("%s", text);
    }
}

/* Each thousandth, in each of its spellings. */
static void test_each_weight(void **state)
{
    (void)state;
    for (unsigned weight = 0; weight <= 1100; weight++) {
        unsigned n_digits = weight % 100 == 0 ? 1 : weight % 10 == 0 ? 2 : 3;

        for (; n_digits <= 3; n_digits++) {
            char text[80], *end = text + snprintf(text, sizeof text, AE "br;q=%u.%03u", weight / 1000, weight % 1000);

            end[(int)n_digits - 3] = '\0';
            assert_int_equal(accept_encoding(head_of(text), SPAN("br")), weight <= 1000 ? weight : 0);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_fields),
        cmocka_unit_test(test_qvalues),
        cmocka_unit_test(test_each_weight),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
