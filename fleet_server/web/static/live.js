// How something stands is put in place whenever the server says so; where no stream comes through, the page is loaded again.
const live = document.getElementById("live");
if (live && live.dataset.source) {
  const again = () => setTimeout(() => location.reload(), 1000 * Number(live.dataset.againS));
  if (typeof EventSource === "undefined") again();
  else {
    const stream = new EventSource(live.dataset.source);
    let isHeard = false;
    stream.addEventListener("standing", (event) => { isHeard = true; live.innerHTML = event.data; });
    stream.addEventListener("ended", () => { stream.close(); location.reload(); });
    // A stream that ends is opened again by the browser itself; one that was refused is not.
    stream.addEventListener("error", () => { if (!isHeard || stream.readyState === EventSource.CLOSED) { stream.close(); again(); } });
  }
}
