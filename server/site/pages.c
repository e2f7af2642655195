#include "site/pages.h"

void pages_error(struct buffer *to, unsigned status, const char *reason)
{
    buffer_printf(to,
                  "<!DOCTYPE html>\n<html lang=\"en\">\n<meta charset=\"utf-8\">\n"
                  "<meta name=\"viewport\" content=\"width=device-width\">\n<title>%u %s</title>\n"
                  "<style>:root{color-scheme:light dark}body{font:1rem/1.5 system-ui,sans-serif;margin:15vh auto;"
                  "max-width:30rem;padding:0 1rem}h1{font-weight:500}b{opacity:.5}</style>\n"
                  "<h1><b>%u</b> %s</h1>\n</html>\n",
                  status, reason, status, reason);
}
