// Keeps the sections of the page up to date, without losing the focus or what is being typed.
const connection = document.getElementById("connection");
const sections = document.querySelectorAll("[data-live]");
let news;

// Makes `now` like `next`. Elements that stay are kept, so that the focus stays where it is.
function become(now, next) {
  for (const { name } of [...now.attributes]) if (!next.hasAttribute(name)) now.removeAttribute(name);
  for (const { name, value } of next.attributes) if (now.getAttribute(name) !== value) now.setAttribute(name, value);
  const byId = new Map([...now.children].filter((child) => child.id).map((child) => [child.id, child]));
  let at = now.firstChild;
  for (const child of [...next.childNodes]) {
    const known = child.id && byId.get(child.id);
    if (known && known !== at) now.insertBefore(known, at);
    const old = known || at;
    const same = old && old.nodeName === child.nodeName && (old.id || "") === (child.id || "");
    if (!same) {
      now.insertBefore(child, at);
    } else {
      if (old.nodeType === Node.ELEMENT_NODE) become(old, child);
      else if (old.data !== child.data) old.data = child.data;
      at = old.nextSibling;
    }
  }
  while (at) {
    const rest = at.nextSibling;
    at.remove();
    at = rest;
  }
}

function show(section, html) {
  const next = section.cloneNode(false);
  next.append(...new DOMParser().parseFromString(html, "text/html").body.childNodes);
  become(section, next);
}

function listen() {
  if (news || sections.length === 0) return;
  const asked = new URLSearchParams(location.search);
  for (const [key, value] of Object.entries(document.body.dataset)) asked.set(key, value);
  news = new EventSource("/events?" + asked);
  news.onopen = () => (connection.textContent = "");
  news.onerror = () => (connection.textContent = "The daemon does not answer.");
  for (const section of sections) news.addEventListener(section.id, (event) => show(section, event.data));
}

function rest() {
  news?.close();
  news = undefined;
}

// A page that nobody sees asks for nothing.
document.addEventListener("visibilitychange", () => (document.hidden ? rest() : listen()));
addEventListener("pagehide", rest);
if (!document.hidden) listen();

document.addEventListener("submit", (event) => {
  const question = event.target.dataset.confirm;
  if (question && !confirm(question)) event.preventDefault();
});
