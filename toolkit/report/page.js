"use strict";
// Headings become buttons that sort; without this script the tables are as they were made.
for (const table of document.querySelectorAll("table.sortable")) {
  const body = table.tBodies[0];
  const headings = [...table.tHead.rows[0].cells];
  // A sentence stands in a line of its own under its row, and goes where that goes.
  const followers = new Map();
  let last;
  for (const row of body.rows) {
    if (row.className === "prose") followers.set(last, row);
    else last = row;
  }
  const made = new Map([...body.rows].map((row, position) => [row, position]));

  const value = (row, column) => {
    const cell = row.cells[column];
    return cell.dataset.v === undefined ? cell.textContent : cell.dataset.v;
  };
  const compare = (left, right, isFigure) =>
    isFigure ? Number(left) - Number(right) : left.localeCompare(right, "en", { numeric: true });

  headings.forEach((heading, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...heading.childNodes);
    heading.append(button);
    heading.setAttribute("aria-sort", "none");
    button.addEventListener("click", () => {
      const isDown = heading.getAttribute("aria-sort") === "ascending";
      for (const other of headings) other.setAttribute("aria-sort", "none");
      heading.setAttribute("aria-sort", isDown ? "descending" : "ascending");
      const isFigure = heading.classList.contains("figure");
      const rows = [...body.rows].filter((row) => row.className !== "prose").sort((a, b) => {
        const [left, right] = [value(a, column), value(b, column)];
        if (left === "" || right === "") return (left === "") - (right === "") || made.get(a) - made.get(b);
        return (isDown ? -1 : 1) * compare(left, right, isFigure) || made.get(a) - made.get(b);
      });
      body.classList.add("sorted");
      for (const row of rows) body.append(row, ...(followers.has(row) ? [followers.get(row)] : []));
    });
  });
}
addEventListener("beforeprint", () => {
  for (const details of document.querySelectorAll("details")) details.open = true;
});
