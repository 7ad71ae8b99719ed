/*
 * kafka_client.c: what every librdkafka client of ours shares: making a configuration, errors in an operator's words, properties and partition lists
 * as texts, and keeping the values of properties out of texts. Any thread; nothing here keeps anything.
 *
 * Values of properties may be passwords. librdkafka repeats a refused value in its error, so that error is never passed on as it is.
 */
#include "ingest/kafka_client.h"

#include <ctype.h>
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define REDACT_LEN_MIN 4 /* shorter values are words like "0" or "ssl"; those of passwords and secrets are taken out whatever their length */
#define REDACTED "***"

#if defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define UNDER_TSAN 1
#endif
#endif
#if defined(__SANITIZE_THREAD__) || defined(UNDER_TSAN)
extern const int kafka_client_tsan;
#define LINK_TSAN() (*(const volatile int *)&kafka_client_tsan)
#else
#define LINK_TSAN() 0
#endif

/* ---- configuration ---- */

static const char *canonical_name(const char *name)
{
	return strcmp(name, "metadata.broker.list") == 0 ? "bootstrap.servers" : name;
}

static int set_one(rd_kafka_conf_t *conf, const char *name, const char *value, char *errstr, size_t errstr_size)
{
	char said[512] = "";
	const char *range;

	switch (rd_kafka_conf_set(conf, name, value, said, sizeof(said))) {
	case RD_KAFKA_CONF_OK:
		return 0;
	case RD_KAFKA_CONF_UNKNOWN:
		snprintf(errstr, errstr_size, "Kafka property \"%s\": librdkafka %s has no property of this name", name, rd_kafka_version_str());
		return -EINVAL;
	case RD_KAFKA_CONF_INVALID:
		break;
	}
	range = strstr(said, "outside allowed range");
	if (range)
		snprintf(errstr, errstr_size, "Kafka property \"%s\": librdkafka refuses its value: %s", name, range);
	else
		snprintf(errstr, errstr_size,
		         "Kafka property \"%s\": librdkafka refuses its value (its CONFIGURATION.md lists what it takes; some values need features that this "
		         "librdkafka was built without)",
		         name);
	return -EINVAL;
}

/* A property may repeat one of our fixed settings, but not change it. */
static int check_not_fixed(const struct kafka_property *property, const char *brokers, const struct kafka_setting *fixed, size_t n_fixed, char *errstr,
                           size_t errstr_size)
{
	const char *name = canonical_name(property->name);

	if (strcmp(name, "bootstrap.servers") == 0 && strcmp(property->value, brokers) != 0) {
		snprintf(errstr, errstr_size, "Kafka property \"%s\": the brokers are set by kafka.brokers alone", property->name);
		return -EINVAL;
	}
	for (size_t i = 0; i < n_fixed; i++) {
		if (strcmp(name, fixed[i].name) == 0 && strcmp(property->value, fixed[i].value) != 0) {
			snprintf(errstr, errstr_size, "Kafka property \"%s\": it must be \"%s\" here and cannot be changed", property->name, fixed[i].value);
			return -EINVAL;
		}
	}
	return 0;
}

int kafka_client_conf(const char *brokers, const struct kafka_setting *defaults, size_t n_defaults, const struct kafka_setting *fixed, size_t n_fixed,
                      const struct kafka_property *properties, size_t n_properties, rd_kafka_conf_t **ret_conf, char *errstr, size_t errstr_size)
{
	rd_kafka_conf_t *conf = rd_kafka_conf_new();
	int r = 0;

	(void)LINK_TSAN(); /* kafka_client_tsan.c */
	if (!conf) {
		snprintf(errstr, errstr_size, "out of memory");
		return -ENOMEM;
	}
	for (size_t i = 0; r == 0 && i < n_defaults; i++)
		r = set_one(conf, defaults[i].name, defaults[i].value, errstr, errstr_size);
	for (size_t i = 0; r == 0 && i < n_properties; i++) {
		r = check_not_fixed(&properties[i], brokers, fixed, n_fixed, errstr, errstr_size);
		if (r == 0)
			r = set_one(conf, properties[i].name, properties[i].value, errstr, errstr_size);
	}
	for (size_t i = 0; r == 0 && i < n_fixed; i++)
		r = set_one(conf, fixed[i].name, fixed[i].value, errstr, errstr_size);
	if (r == 0)
		r = set_one(conf, "bootstrap.servers", brokers, errstr, errstr_size);
	if (r < 0) {
		rd_kafka_conf_destroy(conf);
		return r;
	}
	*ret_conf = conf;
	return 0;
}

void kafka_source_fixed(const char *group, struct kafka_setting ret_fixed[KAFKA_SOURCE_FIXED])
{
	const struct kafka_setting fixed[KAFKA_SOURCE_FIXED] = {
		{"group.id", group},
		{"enable.auto.commit", "false"},
		{"enable.auto.offset.store", "false"},
		{"auto.offset.reset", "error"},
		{"enable.partition.eof", "true"},
		{"allow.auto.create.topics", "false"},
		{"log.queue", "false"},
	};

	memcpy(ret_fixed, fixed, sizeof(fixed));
}

/* ---- words ---- */

/* What `err` means and what mends it; "%B" stands for the brokers, "%T" for the topic. NULL: librdkafka's own words will do. */
static const char *words_of(rd_kafka_resp_err_t err)
{
	switch ((int)err) {
	case RD_KAFKA_RESP_ERR__ALL_BROKERS_DOWN:
	case RD_KAFKA_RESP_ERR__TRANSPORT:
	case RD_KAFKA_RESP_ERR_NETWORK_EXCEPTION:
		return "no broker answers at %B (is it running? is kafka.brokers right? does security.protocol in kafka.properties fit its listener?)";
	case RD_KAFKA_RESP_ERR__TIMED_OUT:
	case RD_KAFKA_RESP_ERR__TIMED_OUT_QUEUE:
	case RD_KAFKA_RESP_ERR_REQUEST_TIMED_OUT:
		return "no answer in time from the brokers at %B (are they running, overloaded, or cut off?)";
	case RD_KAFKA_RESP_ERR__RESOLVE:
		return "a name in kafka.brokers (%B), or one that a broker advertises, cannot be resolved (correct it, or the DNS)";
	case RD_KAFKA_RESP_ERR__AUTHENTICATION:
	case RD_KAFKA_RESP_ERR_SASL_AUTHENTICATION_FAILED:
	case RD_KAFKA_RESP_ERR_UNSUPPORTED_SASL_MECHANISM:
	case RD_KAFKA_RESP_ERR_ILLEGAL_SASL_STATE:
		return "authentication failed at %B (check sasl.mechanism, sasl.username and sasl.password in kafka.properties)";
	case RD_KAFKA_RESP_ERR__SSL:
		return "no TLS connection to %B (check ssl.ca.location and the other ssl.* in kafka.properties)";
	case RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART:
	case RD_KAFKA_RESP_ERR__UNKNOWN_TOPIC:
	case RD_KAFKA_RESP_ERR__UNKNOWN_PARTITION:
	case RD_KAFKA_RESP_ERR_TOPIC_EXCEPTION:
		return "topic \"%T\" or a partition of it does not exist at %B (create it, or correct the stream's `topic` or kafka.partitions)";
	case RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED:
		return "not allowed to use topic \"%T\" at %B (its user needs the rights Read and Describe; to replay, Write)";
	case RD_KAFKA_RESP_ERR_GROUP_AUTHORIZATION_FAILED:
		return "not allowed to use the group of kafka.group at %B (its user needs the right Read on it)";
	case RD_KAFKA_RESP_ERR_CLUSTER_AUTHORIZATION_FAILED:
		return "not allowed on the cluster at %B (ask its administrator)";
	case RD_KAFKA_RESP_ERR_LEADER_NOT_AVAILABLE:
	case RD_KAFKA_RESP_ERR_NOT_LEADER_FOR_PARTITION:
	case RD_KAFKA_RESP_ERR_BROKER_NOT_AVAILABLE:
	case RD_KAFKA_RESP_ERR_REPLICA_NOT_AVAILABLE:
	case RD_KAFKA_RESP_ERR_KAFKA_STORAGE_ERROR:
		return "a partition of topic \"%T\" at %B has no leader now (is one of its brokers down?)";
	case RD_KAFKA_RESP_ERR_COORDINATOR_NOT_AVAILABLE:
	case RD_KAFKA_RESP_ERR_NOT_COORDINATOR:
	case RD_KAFKA_RESP_ERR_COORDINATOR_LOAD_IN_PROGRESS:
		return "the group's coordinator at %B is not available now";
	case RD_KAFKA_RESP_ERR__BAD_MSG:
	case RD_KAFKA_RESP_ERR_INVALID_MSG:
		return "a damaged record came from topic \"%T\" at %B (a bad checksum: check the broker's disk and the network)";
	case RD_KAFKA_RESP_ERR_OFFSET_OUT_OF_RANGE:
		return "topic \"%T\" at %B no longer holds the wanted offset";
	default:
		return NULL;
	}
}

static size_t append(char *text, size_t size, size_t len, const char *more, size_t n)
{
	if (len + 1 >= size)
		return len;
	if (n > size - 1 - len)
		n = size - 1 - len;
	memcpy(text + len, more, n);
	text[len + n] = '\0';
	return len + n;
}

void kafka_client_words(rd_kafka_resp_err_t err, const char *brokers, const char *topic, const char *detail, char *ret_text, size_t size)
{
	const char *words = words_of(err);
	size_t len = 0;

	if (size == 0)
		return;
	ret_text[0] = '\0';
	if (!words)
		words = rd_kafka_err2str(err);
	while (*words) {
		size_t plain = strcspn(words, "%");
		const char *value = words[plain] == '\0' ? NULL : words[plain + 1] == 'B' ? brokers : words[plain + 1] == 'T' ? topic : NULL;

		if (plain > 0) {
			len = append(ret_text, size, len, words, plain);
			words += plain;
		} else if (value) {
			len = append(ret_text, size, len, value, strlen(value));
			words += 2;
		} else {
			len = append(ret_text, size, len, words++, 1);
		}
	}
	if (detail && *detail) {
		len = append(ret_text, size, len, "; librdkafka: ", 14);
		append(ret_text, size, len, detail, strlen(detail));
	}
}

/* How much of `text` a property's value covers. */
static size_t value_at(const char *text, const struct kafka_property *properties, size_t n_properties)
{
	size_t longest = 0;

	for (size_t i = 0; i < n_properties; i++) {
		const char *name = properties[i].name;
		size_t len = strlen(properties[i].value);
		int secret = strstr(name, "password") || strstr(name, "secret");

		if (len > longest && (secret || len >= REDACT_LEN_MIN) && strncmp(text, properties[i].value, len) == 0)
			longest = len;
	}
	return longest;
}

void kafka_client_redact(const char *text, const struct kafka_property *properties, size_t n_properties, char *ret_text, size_t size)
{
	size_t len = 0;

	if (size == 0)
		return;
	ret_text[0] = '\0';
	while (*text) {
		size_t n = value_at(text, properties, n_properties);

		len = n > 0 ? append(ret_text, size, len, REDACTED, strlen(REDACTED)) : append(ret_text, size, len, text, 1);
		text += n > 0 ? n : 1;
	}
}

/* ---- properties ---- */

int kafka_property_parse(const char *text, struct kafka_property *ret_property)
{
	const char *equals = strchr(text, '=');
	struct kafka_property property;

	if (!equals || equals == text)
		return -EINVAL;
	property.name = strndup(text, (size_t)(equals - text));
	property.value = strdup(equals + 1);
	if (!property.name || !property.value) {
		kafka_property_clear(&property);
		return -ENOMEM;
	}
	*ret_property = property;
	return 0;
}

void kafka_property_clear(struct kafka_property *property)
{
	if (property->value)
		explicit_bzero(property->value, strlen(property->value));
	free(property->name);
	free(property->value);
	property->name = NULL;
	property->value = NULL;
}

/* ---- partition lists ---- */

static const char *skip_blanks(const char *text)
{
	while (*text == ' ' || *text == '\t')
		text++;
	return text;
}

/* A partition number; NULL when there is none, or it is too large. */
static const char *take_partition(const char *text, int32_t *ret_partition)
{
	int64_t number = 0;

	text = skip_blanks(text);
	if (!isdigit((unsigned char)*text))
		return NULL;
	for (; isdigit((unsigned char)*text); text++) {
		number = number * 10 + (*text - '0');
		if (number >= INT32_MAX)
			return NULL;
	}
	*ret_partition = (int32_t)number;
	return skip_blanks(text);
}

static const char *take_range(const char *text, struct partition_range *ret_range, char *errstr, size_t errstr_size)
{
	const char *end = take_partition(text, &ret_range->first);

	ret_range->last = ret_range->first;
	if (end && *end == '-')
		end = take_partition(end + 1, &ret_range->last);
	if (!end || (*end != '\0' && *end != ',')) {
		snprintf(errstr, errstr_size, "\"%.40s\": a partition (8) or a range of partitions (0-3) belongs here; or write \"all\"", text);
		return NULL;
	}
	if (ret_range->last < ret_range->first) {
		snprintf(errstr, errstr_size, "%d-%d: the first partition is above the last", ret_range->first, ret_range->last);
		return NULL;
	}
	return end;
}

static int check_no_overlap(const struct partition_range *ranges, size_t n, char *errstr, size_t errstr_size)
{
	const struct partition_range *last = &ranges[n - 1];

	for (size_t i = 0; i + 1 < n; i++) {
		if (ranges[i].first <= last->last && last->first <= ranges[i].last) {
			snprintf(errstr, errstr_size, "partition %d is named twice", last->first > ranges[i].first ? last->first : ranges[i].first);
			return -EINVAL;
		}
	}
	return 0;
}

int partition_ranges_parse(const char *text, struct partition_range **ret_ranges, size_t *ret_n, char *errstr, size_t errstr_size)
{
	struct partition_range *ranges = NULL;
	const char *at = text;
	size_t n = 0, n_max = 1;

	if (strcmp(text, "all") == 0) {
		*ret_ranges = NULL;
		*ret_n = 0;
		return 0;
	}
	for (const char *c = text; *c; c++)
		n_max += *c == ',';
	ranges = calloc(n_max, sizeof(*ranges));
	if (!ranges) {
		snprintf(errstr, errstr_size, "out of memory");
		return -ENOMEM;
	}
	for (;;) {
		at = take_range(at, &ranges[n], errstr, errstr_size);
		if (!at || check_no_overlap(ranges, ++n, errstr, errstr_size) < 0) {
			free(ranges);
			return -EINVAL;
		}
		if (*at == '\0')
			break;
		at++;
	}
	*ret_ranges = ranges;
	*ret_n = n;
	return 0;
}
