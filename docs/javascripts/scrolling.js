// Lets the keyboard reach what scrolls sideways. The theme does so for code only, and undoes it without a mouse.
function reach({ target }) {
  const scrolls = target.scrollWidth > target.clientWidth;
  if (scrolls === target.hasAttribute("tabindex")) return;
  if (scrolls) target.tabIndex = 0;
  else target.removeAttribute("tabindex");
}
const sizes = new ResizeObserver((entries) => entries.forEach(reach));
const changes = new MutationObserver((records) => records.forEach(reach));

document$.subscribe(() => {
  const scrollers = ".md-typeset :is(pre > code, figure, .md-typeset__scrollwrap, .ws-doctest-run)";
  for (const each of document.querySelectorAll(scrollers)) {
    sizes.observe(each);
    changes.observe(each, { attributeFilter: ["tabindex"] });
  }
});
