/* What server.h declares. */
#include "server.h"
#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

enum { LINE = 4096, BACKLOG = 64 };

int client;

void say(const char *format, ...)
{
    char line[LINE];
    va_list arguments;
    va_start(arguments, format);
    int length = vsnprintf(line, sizeof line, format, arguments);
    va_end(arguments);
    if (write(client, line, length) != length)
        exit(1);
}

int listen_on(const char *port, int flags)
{
    int listener = socket(AF_INET, SOCK_STREAM | flags, 0), yes = 1;
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_port = htons(atoi(port))};
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes);
    if (bind(listener, (struct sockaddr *)&at, sizeof at) != 0 || listen(listener, BACKLOG) != 0) {
        perror("cannot listen");
        exit(1);
    }
    return listener;
}

void serve(int listener, int flags, void (*answer)(char request))
{
    for (;;) {
        client = flags ? accept4(listener, NULL, NULL, flags) : accept(listener, NULL, NULL);
        if (client < 0)
            continue;
        char request;
        if (read(client, &request, 1) == 1)
            answer(request);
        close(client);
    }
}
