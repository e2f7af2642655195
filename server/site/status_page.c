/*
 * The page for people: what does not change while it is looked at. It needs no script: without one it is loaded anew
 * every few seconds. With one, its parts are replaced by what PREFIXevents sends.
 */
#include <inttypes.h>

#include "site/status_inside.h"
#include "site/status_text.h"

const char status_style[] =
    ":root{color-scheme:light dark;--ink:#1c2430;--soft:#5d6b7e;--page:#f4f6f9;--card:#fff;--line:#dde3ea;"
    "--idle:#d9f2e3;--idle-ink:#12683c;--busy:#2563c9;--busy-ink:#fff;--start:#fdebc8;--start-ink:#855400;"
    "--retire:#ece4fa;--retire-ink:#5b35a0;--bad:#c22f2f;--bad-ink:#fff;--bar:#2563c9}"
    "@media(prefers-color-scheme:dark){:root{--ink:#e4e9f0;--soft:#94a2b5;--page:#12161c;--card:#1a2029;--line:#2c3542;"
    "--idle:#173627;--idle-ink:#86dfae;--busy:#4c8df0;--busy-ink:#08152b;--start:#42310d;--start-ink:#ffd27a;"
    "--retire:#2f2450;--retire-ink:#c9b3ff;--bad:#ff7b72;--bad-ink:#2b0a08;--bar:#4c8df0}}"
    "*{box-sizing:border-box}"
    "body{margin:0;font:15px/1.45 system-ui,sans-serif;color:var(--ink);background:var(--page);"
    "font-variant-numeric:tabular-nums}"
    "header,main,footer{max-width:74rem;margin:0 auto;padding:0 1.25rem}"
    "header{padding-top:1.4rem;display:flex;align-items:baseline;gap:.75rem;flex-wrap:wrap}"
    "h1{font-size:1.35rem;font-weight:650;margin:0;letter-spacing:-.01em}"
    "h2{font-size:1.08rem;font-weight:650;margin:0;display:flex;align-items:baseline;gap:.6rem;flex-wrap:wrap}"
    "h3{font-size:.8rem;font-weight:600;margin:0 0 .35rem;color:var(--soft)}"
    "small,.soft{color:var(--soft);font-weight:400;font-size:.86rem}"
    ".card{background:var(--card);border:1px solid var(--line);border-radius:.65rem;padding:1rem 1.15rem;margin:1rem 0}"
    ".facts{display:flex;flex-wrap:wrap;gap:.5rem 2rem;margin:0}"
    ".facts div{min-width:5.5rem}.facts dt{color:var(--soft);font-size:.8rem}"
    ".facts dd{margin:0;font-size:1.2rem;font-weight:600;white-space:nowrap}"
    ".facts.few{gap:.35rem .8rem}.facts.few dt{font-size:.75rem}"
    ".pictures .few{display:grid;grid-template-columns:repeat(auto-fill,minmax(4.9rem,1fr))}.few div{min-width:0}"
    ".facts.few dd{font-size:.92rem;font-weight:500}"
    ".cells{list-style:none;display:flex;flex-wrap:wrap;gap:.35rem;margin:.8rem 0 .9rem;padding:0}"
    ".cells li{min-width:5.2rem;padding:.3rem .5rem;border-radius:.4rem;border:1px solid transparent;font-size:.8rem;"
    "line-height:1.3;white-space:nowrap}"
    ".cells b{display:block;font-weight:600}"
    ".idle,.up{background:var(--idle);color:var(--idle-ink)}.busy{background:var(--busy);color:var(--busy-ink)}"
    ".starting,.trying{background:var(--start);color:var(--start-ink);border-style:dashed;border-color:currentColor!"
    "important}"
    ".retiring,.leaving{background:var(--retire);color:var(--retire-ink);border-style:dotted;border-color:currentColor!"
    "important}"
    ".cells.servers li{max-width:100%;white-space:normal;overflow-wrap:anywhere}"
    ".down{background:var(--bad);color:var(--bad-ink)}"
    ".free{border:1px dashed var(--line)!important;color:var(--soft)}"
    ".many li{min-width:0;padding:.15rem .3rem;font-size:.7rem}"
    ".pictures{display:grid;grid-template-columns:repeat(auto-fit,minmax(17rem,1fr));gap:1rem 2rem}"
    "svg{display:block;width:100%;max-width:22rem;height:auto}.bar{fill:var(--bar)}.back{fill:var(--line)}"
    ".mark{fill:var(--soft)}svg text{fill:var(--soft);font-size:8.5px}"
    "figure{margin:0}figcaption{font-size:.86rem;margin-top:.3rem}"
    ".badge{font-size:.75rem;font-weight:600;border-radius:1rem;padding:.05rem "
    ".55rem;color:var(--bad-ink);background:var(--bad)}"
    ".badge.calm{background:var(--soft);color:var(--page)}"
    ".bad{color:var(--bad)}details{margin-top:.7rem;font-size:.86rem}summary{cursor:pointer;color:var(--soft)}"
    "details .facts{margin:.6rem 0 .2rem}.holders{overflow-wrap:anywhere;margin:.5rem 0 0;padding-left:1.2rem}"
    ".scroll{overflow-x:auto}table{border-collapse:collapse;width:100%;font-size:.86rem}"
    "th{text-align:left;font-weight:500;color:var(--soft);padding:.25rem .9rem .25rem 0;white-space:nowrap}"
    "td{padding:.28rem .9rem .28rem 0;border-top:1px solid var(--line);white-space:nowrap}"
    "td.uri{white-space:normal;overflow-wrap:anywhere;min-width:14rem;font-family:ui-monospace,monospace;font-size:."
    "8rem}"
    ".num{text-align:right}footer{padding-bottom:2rem}a{color:inherit}nav{margin-left:auto;display:flex;gap:1rem}"
    "nav a{color:var(--soft);font-size:.86rem}#live{font-size:.8rem;color:var(--soft)}";

/* What was opened stays open. When the parts are others than on this page, it is loaded anew. */
const char status_script[] =
    "'use strict';(()=>{const main=document.querySelector('main'),live=document.getElementById('live');"
    "const reload=()=>setTimeout(()=>location.reload(),5000);"
    "const put=(id,html)=>{const at=document.getElementById(id);if(!at)return;"
    "const open=new Set([...at.querySelectorAll('details[open]')].map(d=>d.className));at.innerHTML=html;"
    "for(const d of at.querySelectorAll('details'))d.open=open.has(d.className)};"
    "const source=new EventSource('events');"
    "source.addEventListener('parts',event=>{const news=JSON.parse(event.data);"
    "if(news.shape!==main.dataset.shape){source.close();location.reload();return}"
    "for(const[id,html]of Object.entries(news.parts))put(id,html);"
    "main.dataset.events=Number(main.dataset.events||0)+1;live.textContent='live'});"
    "source.addEventListener('end',()=>{source.close();live.textContent='the server has ended this stream';reload()});"
    "source.onerror=()=>{live.textContent='not live';if(source.readyState===EventSource.CLOSED)reload()}})()";

static void write_head(struct buffer *to, const char *nonce)
{
    buffer_printf(to,
                  "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n"
                  "<meta name=\"viewport\" content=\"width=device-width\">\n<title>gatehouse status</title>\n"
                  "<link rel=\"icon\" href=\"data:image/svg+xml,%%3Csvg xmlns='http://www.w3.org/2000/svg' "
                  "viewBox='0 0 16 16'%%3E%%3Cpath fill='%%232563c9' d='M1 15V5l7-4 7 4v10h-4v-5a3 3 0 0 0-6 0v5z'/"
                  "%%3E%%3C/svg%%3E\">\n"
                  "<noscript><meta http-equiv=\"refresh\" content=\"3\"></noscript>\n<style nonce=\"%s\">",
                  nonce);
    buffer_append_span(to, span_of(status_style));
    buffer_append_span(to, SPAN("</style>\n</head>\n<body>\n<header><h1>gatehouse</h1><small>" GATEHOUSE_VERSION
                                "</small><span id=\"live\"></span><nav><a href=\"status.json\">status.json</a>"
                                "<a href=\"requests.json\">requests.json</a><a href=\"metrics\">metrics</a>"
                                "<a href=\"readyz\">readyz</a></nav></header>\n"));
}

void status_write_page(struct buffer *to, const struct view *view, const struct status *status, const char *nonce)
{
    struct part part;

    write_head(to, nonce);
    buffer_printf(to, "<main data-shape=\"%016" PRIx64 "\">\n", parts_shape(view));
    for (unsigned i = 0; i < parts_count(view); i++) {
        parts_get(view, i, &part);
        buffer_printf(to, "<section class=\"card\" id=\"%s\">\n", part.id);
        parts_write(to, view, status, &part);
        buffer_append_span(to, SPAN("</section>\n"));
    }
    buffer_printf(to, "</main>\n<script nonce=\"%s\">", nonce);
    buffer_append_span(to, span_of(status_script));
    buffer_append_span(to, SPAN("</script>\n</body>\n</html>\n"));
}
