/*
 * One health request: how does a FastCGI application do? It is asked on a connection of its own, which is closed
 * afterwards, as a responder to a GET without a body:
 *
 *     SCRIPT_NAME, SCRIPT_FILENAME, DOCUMENT_URI   the path
 *     REQUEST_URI, QUERY_STRING                    with its query; the query
 *     REQUEST_METHOD=GET  SERVER_PROTOCOL=HTTP/1.1  GATEWAY_INTERFACE=CGI/1.1  REQUEST_SCHEME=http
 *     SERVER_SOFTWARE, HTTP_USER_AGENT             gatehouse's
 *     SERVER_NAME, HTTP_HOST                       localhost
 *     SERVER_ADDR, REMOTE_ADDR                     127.0.0.1
 *     SERVER_PORT=80  REMOTE_PORT=0  CONTENT_LENGTH=  CONTENT_TYPE=  REDIRECT_STATUS=200
 */
#ifndef GATEHOUSE_FASTCGI_HEALTH_H
#define GATEHOUSE_FASTCGI_HEALTH_H

#include <event2/event.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/socket.h>

struct health_query;

/* Called once, from the loop: its answer is whole and has a status from 200 to 399; or `why` it is not well. The query
 * is gone after it. */
typedef void health_answered(void *arg, bool is_well, const char *why);

/* The whole may take timeout_ms. Returns NULL, and errno, when no connection can be begun. */
struct health_query *health_ask(struct event_base *base, const struct sockaddr *address, socklen_t len,
                                const char *path, uint64_t timeout_ms, health_answered *answered, void *arg);

/* There will be no answer. NULL is harmless. */
void health_cancel(struct health_query *query);

/* The status that the head of a CGI response has, which is hostile; 0: it is no such head. Pure. */
unsigned health_status(const char *head, size_t len);

#endif
