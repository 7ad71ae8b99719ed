/*
 * test_kafka_client.c: properties, partition lists, configurations that librdkafka refuses, errors in words, and values that must not show.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "ingest/kafka_client.h"

static const struct kafka_setting defaults[] = {{"fetch.message.max.bytes", "262144"}};
static const struct kafka_setting fixed[] = {{"enable.auto.commit", "false"}};

static int make(const char *name, const char *value, rd_kafka_conf_t **ret_conf, char *errstr, size_t errstr_size)
{
	char name_copy[64], value_copy[64];
	struct kafka_property property = {name_copy, value_copy};

	strncpy(name_copy, name ? name : "", sizeof(name_copy) - 1);
	strncpy(value_copy, value ? value : "", sizeof(value_copy) - 1);
	name_copy[sizeof(name_copy) - 1] = value_copy[sizeof(value_copy) - 1] = '\0';
	return kafka_client_conf("127.0.0.1:9", defaults, 1, fixed, 1, &property, name ? 1 : 0, ret_conf, errstr, errstr_size);
}

static void assert_conf(rd_kafka_conf_t *conf, const char *name, const char *wanted)
{
	char value[256];
	size_t size = sizeof(value);

	assert_int_equal(rd_kafka_conf_get(conf, name, value, &size), RD_KAFKA_CONF_OK);
	assert_string_equal(value, wanted);
}

static void test_conf_order(void **unused)
{
	rd_kafka_conf_t *conf;
	char errstr[512];

	(void)unused;
	assert_int_equal(make(NULL, NULL, &conf, errstr, sizeof(errstr)), 0);
	assert_conf(conf, "fetch.message.max.bytes", "262144");
	assert_conf(conf, "enable.auto.commit", "false");
	assert_conf(conf, "bootstrap.servers", "127.0.0.1:9");
	rd_kafka_conf_destroy(conf);
	assert_int_equal(make("fetch.message.max.bytes", "9999", &conf, errstr, sizeof(errstr)), 0); /* the operator wins over a default */
	assert_conf(conf, "fetch.message.max.bytes", "9999");
	rd_kafka_conf_destroy(conf);
	assert_int_equal(make("enable.auto.commit", "false", &conf, errstr, sizeof(errstr)), 0); /* saying what holds anyway is no error */
	rd_kafka_conf_destroy(conf);
}

static void test_conf_refused(void **unused)
{
	static const struct {
		const char *name, *value, *said;
	} table[] = {
		{"no.such.property", "hunter2hunter2", "no property of this name"},
		{"security.protocol", "hunter2hunter2", "refuses its value"},
		{"fetch.wait.max.ms", "-77712345", "outside allowed range"},
		{"enable.auto.commit", "true", "cannot be changed"},
		{"bootstrap.servers", "hunter2hunter2", "kafka.brokers"},
		{"metadata.broker.list", "hunter2hunter2", "kafka.brokers"},
	};
	rd_kafka_conf_t *conf = NULL;

	(void)unused;
	for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++) {
		char errstr[512] = "";

		assert_int_equal(make(table[i].name, table[i].value, &conf, errstr, sizeof(errstr)), -EINVAL);
		assert_null(conf);
		assert_non_null(strstr(errstr, table[i].name));
		assert_non_null(strstr(errstr, table[i].said));
		assert_null(strstr(errstr, table[i].value));
	}
}

static void test_properties(void **unused)
{
	struct kafka_property property = {NULL, NULL};

	(void)unused;
	assert_int_equal(kafka_property_parse("sasl.password=a=b=", &property), 0);
	assert_string_equal(property.name, "sasl.password");
	assert_string_equal(property.value, "a=b=");
	kafka_property_clear(&property);
	assert_null(property.value);
	assert_int_equal(kafka_property_parse("debug=", &property), 0);
	assert_string_equal(property.value, "");
	kafka_property_clear(&property);
	assert_int_equal(kafka_property_parse("debug", &property), -EINVAL);
	assert_int_equal(kafka_property_parse("=x", &property), -EINVAL);
	assert_int_equal(kafka_property_parse("", &property), -EINVAL);
	assert_null(property.name);
}

static void test_ranges(void **unused)
{
	static const struct {
		const char *text;
		int n; /* -1: refused */
		struct partition_range ranges[3];
		const char *said;
	} table[] = {
		{"all", 0, {{0, 0}}, NULL},
		{"0", 1, {{0, 0}}, NULL},
		{"0-3,8", 2, {{0, 3}, {8, 8}}, NULL},
		{" 8 , 0 - 3,5-5", 3, {{8, 8}, {0, 3}, {5, 5}}, NULL},
		{"2147483646", 1, {{INT32_MAX - 1, INT32_MAX - 1}}, NULL},
		{"", -1, {{0, 0}}, "belongs here"},
		{"0,", -1, {{0, 0}}, "belongs here"},
		{",0", -1, {{0, 0}}, "belongs here"},
		{"0-", -1, {{0, 0}}, "belongs here"},
		{"-1", -1, {{0, 0}}, "belongs here"},
		{"0 1", -1, {{0, 0}}, "belongs here"},
		{"0-1-2", -1, {{0, 0}}, "belongs here"},
		{"1,all", -1, {{0, 0}}, "\"all\""},
		{"ALL", -1, {{0, 0}}, "belongs here"},
		{"2147483647", -1, {{0, 0}}, "belongs here"},
		{"99999999999999999999", -1, {{0, 0}}, "belongs here"},
		{"3-0", -1, {{0, 0}}, "above the last"},
		{"0-3,3", -1, {{0, 0}}, "partition 3 is named twice"},
		{"5,0-9", -1, {{0, 0}}, "partition 5 is named twice"},
		{"7,8,7", -1, {{0, 0}}, "partition 7 is named twice"},
	};

	(void)unused;
	for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++) {
		struct partition_range *ranges = NULL;
		char errstr[256] = "";
		size_t n = 77;
		int r = partition_ranges_parse(table[i].text, &ranges, &n, errstr, sizeof(errstr));

		if (table[i].n < 0) {
			assert_int_equal(r, -EINVAL);
			assert_null(ranges);
			assert_int_equal(n, 77);
			assert_non_null(strstr(errstr, table[i].said));
			continue;
		}
		assert_int_equal(r, 0);
		assert_int_equal(n, table[i].n);
		if (n > 0)
			assert_memory_equal(ranges, table[i].ranges, n * sizeof(*ranges));
		free(ranges);
	}
}

static void test_words(void **unused)
{
	static const struct {
		rd_kafka_resp_err_t err;
		const char *said[2];
	} table[] = {
		{RD_KAFKA_RESP_ERR__ALL_BROKERS_DOWN, {"no broker answers at BROKER:1", "is it running?"}},
		{RD_KAFKA_RESP_ERR__TRANSPORT, {"no broker answers at BROKER:1", "kafka.brokers"}},
		{RD_KAFKA_RESP_ERR__RESOLVE, {"BROKER:1", "cannot be resolved"}},
		{RD_KAFKA_RESP_ERR__AUTHENTICATION, {"authentication failed at BROKER:1", "sasl.password"}},
		{RD_KAFKA_RESP_ERR_SASL_AUTHENTICATION_FAILED, {"authentication failed at BROKER:1", "kafka.properties"}},
		{RD_KAFKA_RESP_ERR__SSL, {"TLS", "ssl.ca.location"}},
		{RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART, {"topic \"TOPIC\"", "create it"}},
		{RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED, {"not allowed to use topic \"TOPIC\"", "Read and Describe"}},
		{RD_KAFKA_RESP_ERR_GROUP_AUTHORIZATION_FAILED, {"kafka.group", "Read"}},
		{RD_KAFKA_RESP_ERR_LEADER_NOT_AVAILABLE, {"no leader", "TOPIC"}},
		{RD_KAFKA_RESP_ERR__FATAL, {"Fatal error", ""}}, /* no words of ours: librdkafka's */
	};
	char text[512], small[12];

	(void)unused;
	for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++) {
		kafka_client_words(table[i].err, "BROKER:1", "TOPIC", NULL, text, sizeof(text));
		assert_non_null(strstr(text, table[i].said[0]));
		assert_non_null(strstr(text, table[i].said[1]));
		assert_null(strchr(text, '%'));
	}
	kafka_client_words(RD_KAFKA_RESP_ERR__TRANSPORT, "50%B:1", "TOPIC", "said so", text, sizeof(text));
	assert_non_null(strstr(text, "at 50%B:1 ("));
	assert_non_null(strstr(text, "; librdkafka: said so"));
	kafka_client_words(RD_KAFKA_RESP_ERR__TRANSPORT, "BROKER:1", "TOPIC", "detail", small, sizeof(small));
	assert_string_equal(small, "no broker a");
}

static void test_redact(void **unused)
{
	char names[4][24] = {"sasl.username", "sasl.password", "ssl.key.password", "debug"};
	char values[4][24] = {"alice", "alice-in", "q", "all"};
	struct kafka_property properties[4];
	char text[64], small[4];

	(void)unused;
	for (int i = 0; i < 4; i++)
		properties[i] = (struct kafka_property){names[i], values[i]};
	kafka_client_redact("alice said alice-in, all q", properties, 4, text, sizeof(text));
	assert_string_equal(text, "*** said ***, all ***");
	kafka_client_redact("nothing", properties, 0, text, sizeof(text));
	assert_string_equal(text, "nothing");
	kafka_client_redact("alice", properties, 4, small, sizeof(small));
	assert_string_equal(small, "***");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_conf_order), cmocka_unit_test(test_conf_refused), cmocka_unit_test(test_properties),
		cmocka_unit_test(test_ranges),     cmocka_unit_test(test_words),        cmocka_unit_test(test_redact),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
