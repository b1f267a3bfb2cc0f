// What is wider than the page can be scrolled with the keyboard, and a block's buttons are no landmark of the page.
const tidy = () => {
  for (const box of document.querySelectorAll(".md-typeset__scrollwrap, .md-typeset pre > code")) box.tabIndex = 0;
  for (const nav of document.querySelectorAll("nav.md-code__nav:not([role])")) nav.setAttribute("role", "none");
};
tidy();
new MutationObserver(tidy).observe(document.body, { childList: true, subtree: true });
