// Keeps the page true: the agent says that something changed, and the parts of the page are fetched again. What somebody
// is writing in stays as it is. Without this file the page is the same, and is reloaded by hand.
"use strict";

const note = document.getElementById("live");
let fetching = false;
let due = false;

function isInUse(part) {
  const typed = [...part.querySelectorAll("input, textarea")].some((field) => field.value !== field.defaultValue);
  return typed || part.contains(document.activeElement) || part.querySelector("details[open]") !== null;
}

function put(fresh) {
  document.title = fresh.title;
  for (const part of fresh.querySelectorAll("[data-part]")) {
    const here = document.querySelector(`[data-part="${part.dataset.part}"]`);
    if (here && !isInUse(here) && here.innerHTML !== part.innerHTML) here.replaceWith(part);
  }
}

async function refresh() {
  if (fetching) {
    due = true;
    return;
  }
  fetching = true;
  due = false;
  try {
    const answer = await fetch("/", { cache: "no-store" });
    if (answer.ok) put(new DOMParser().parseFromString(await answer.text(), "text/html"));
  } catch {
    // The stream says by itself that the agent is gone.
  } finally {
    fetching = false;
    if (due) refresh();
  }
}

function listen() {
  const events = new EventSource("/events");
  events.addEventListener("change", refresh);
  events.onopen = () => { note.textContent = "This page shows what happens as it happens."; };
  events.onerror = () => {
    note.textContent = "The agent does not answer; what is shown may be old. It is tried again.";
    if (events.readyState === EventSource.CLOSED) setTimeout(listen, 10000);
  };
}

listen();
