/*
 * kafka_client.h: what every librdkafka client of ours shares: its configuration, its errors in words, and the small texts of the configuration
 * (properties, partition lists). Used by the Kafka source and by `recctl replay`.
 */
#ifndef INGEST_KAFKA_CLIENT_H
#define INGEST_KAFKA_CLIENT_H

#include <librdkafka/rdkafka.h>
#include <stddef.h>

#include "ingest/source.h"

struct kafka_setting {
	const char *name;
	const char *value;
};

/*
 * A new configuration: `defaults` first, then the operator's properties, then `fixed`, on which our promises stand. A property that names one of `fixed`, or
 * "bootstrap.servers", with another value is refused. *ret_conf is owned by the caller (rd_kafka_new() takes it over, or rd_kafka_conf_destroy()).
 * Errors: -EINVAL, errstr names the property and what librdkafka says of it, never its value; -ENOMEM.
 */
int kafka_client_conf(const char *brokers, const struct kafka_setting *defaults, size_t n_defaults, const struct kafka_setting *fixed, size_t n_fixed,
                      const struct kafka_property *properties, size_t n_properties, rd_kafka_conf_t **ret_conf, char *errstr, size_t errstr_size);

/* The `fixed` of the Kafka source, in its group: for the source itself, and for whoever checks a configuration before there is one. */
#define KAFKA_SOURCE_FIXED 7
void kafka_source_fixed(const char *group, struct kafka_setting ret_fixed[KAFKA_SOURCE_FIXED]);

/*
 * An error as an operator understands it, with the mend: "no broker answers at 127.0.0.1:9092 (is it running? ...)". `detail` is librdkafka's own text
 * (redacted by the caller), or NULL.
 */
void kafka_client_words(rd_kafka_resp_err_t err, const char *brokers, const char *topic, const char *detail, char *ret_text, size_t size);

/*
 * Copies `text` with the properties' values in it made "***": librdkafka's texts may repeat them. Values under 4 characters stay, unless the name says
 * password or secret. Whatever librdkafka says goes through here before it is logged or shown.
 */
void kafka_client_redact(const char *text, const struct kafka_property *properties, size_t n_properties, char *ret_text, size_t size);

/* "NAME=VALUE" (the value may hold '=' and be empty). 0, -EINVAL (no '=' or no name), -ENOMEM. The strings are freed by kafka_property_clear(). */
int kafka_property_parse(const char *text, struct kafka_property *ret_property);
void kafka_property_clear(struct kafka_property *property);

/*
 * "all", or partitions and ranges such as "0-3,8", ascending or not, without overlaps. *ret_ranges is freed by the caller; "all" gives n 0 and NULL.
 * 0, -EINVAL (errstr: what is wrong where), -ENOMEM.
 */
int partition_ranges_parse(const char *text, struct partition_range **ret_ranges, size_t *ret_n, char *errstr, size_t errstr_size);

#endif
