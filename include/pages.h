#pragma once
// The web page and the description of the interface: files of server/ that are part of the
// binary, by the path that they are served at. Everything is constant; any thread may ask.

struct page {
    const char *path;         // "/style.css"
    const char *content_type; // "text/css; charset=utf-8"
    const char *bytes, *end;  // [bytes, end)
    const char *etag;         // with its quotes; changes when any of the files does
};

// NULL where the path is none of ours.
const struct page *page_find(const char *path);
