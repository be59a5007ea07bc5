/* Shared by the servers: a port, and one connection after the other that is answered with lines. */
#ifndef SERVER_H
#define SERVER_H

#define _GNU_SOURCE
#include <sys/socket.h>

/* The connection that is answered now. */
extern int client;

/* Writes a formatted text to the client. Ends the server if that fails. */
void say(const char *format, ...);

/* A TCP socket that listens on `port` of all addresses; `flags` as SOCK_CLOEXEC. Ends the server if that
 * fails. */
int listen_on(const char *port, int flags);

/* Accepts clients for ever: reads one byte of each, answers it, and closes the connection. */
_Noreturn void serve(int listener, int flags, void (*answer)(char request));

#endif
