// Shows newer figures every five seconds while somebody looks. What did not change stays, with its focus.
const connection = document.getElementById("connection");

async function refresh() {
  if (document.hidden) return;
  try {
    const answer = await fetch("/", { signal: AbortSignal.timeout(4000) });
    const next = new DOMParser().parseFromString(await answer.text(), "text/html");
    const [old, fresh] = [document, next].map((page) => [...page.querySelectorAll("main section > *")]);
    if (old.length === fresh.length) {
      old.forEach((part, at) => part.innerHTML !== fresh[at].innerHTML && part.replaceChildren(...fresh[at].childNodes));
    } else {
      document.querySelector("main").replaceWith(next.querySelector("main"));
    }
    connection.textContent = "";
  } catch {
    connection.textContent = "The tracker does not answer.";
  }
}

setInterval(refresh, 5000);
document.addEventListener("visibilitychange", refresh);
