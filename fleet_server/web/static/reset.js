// A link to this page carries its code behind '#', which no browser sends: put it into the form, and out of the address.
const code = document.getElementById("code");
if (code && location.hash.length > 1) {
  code.value = location.hash.slice(1);
  history.replaceState(null, "", location.pathname);
}
