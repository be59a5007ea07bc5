/* Shared by the rounds of the socket server. */
#ifndef SOCKETS_H
#define SOCKETS_H

#include "../server.h"
#include <netinet/in.h>

/* A result with the name of its error. */
const char *named(long result);

/* Waits until a descriptor is ready: natively, loopback may take a moment. */
const char *await(int fd, short wanted);

/* Both ends of a connection. */
void linked(int ends[2]);

/* As many descriptors as there is room for. */
int receive_fds(int over, int *fds, int room, int *flags);

const char *events(short bits);
const char *ready(int fd);
struct sockaddr_in loopback(int port);
int port_of(int fd);
int listener(void);
int connect_to(int port);
void close_both(int ends[2]);
int error_of(int fd);
int option(int fd, int level, int name);
void watch(int epoll, int fd, unsigned what, int data);
void collect(const char *title, int epoll);
int send_fds(int over, const int *fds, int count);

/* The rounds. */
void connecting(void);
void ending(void);
void listening(void);
void reading(void);
void windows(void);
void blocking(void);
void splicing(void);
void nesting(void);
void epolls(void);
void replacing(void);
void passing(void);
void unix_sockets(void);
void hidden_names(void);

#endif
