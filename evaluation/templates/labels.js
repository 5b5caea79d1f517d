'use strict';
const names = JSON.parse(document.getElementById('names').textContent);
const figures = Array.from(document.querySelectorAll('figure'));
const bar = document.getElementById('bar');
const button = bar.querySelector('button');
const columns = ['file', 'label', 'action', 'new_label', 'new_file'];
let saved = true;

function fill(select) {
  const chosen = select.value;
  select.replaceChildren(...names.map(name => new Option(
    name, name, name === chosen, name === chosen)));
}

function choiceOf(figure) {
  return {
    action: figure.querySelector('input:checked').value,
    newLabel: figure.querySelector('select').value,
  };
}

function show(figure, choice) {
  const select = figure.querySelector('select');
  if (select.value !== choice.newLabel) {
    fill(select);
    select.value = choice.newLabel;
  }
  figure.querySelector(`input[value="${choice.action}"]`).checked = true;
  figure.classList.toggle('decided', choice.action !== '');
}

function decided() {
  const rows = new Map();
  for (const figure of figures) {
    const choice = choiceOf(figure);
    if (choice.action) {
      rows.set(figure.dataset.file, [
        figure.dataset.file, figure.dataset.label, choice.action,
        choice.action === 'move' ? choice.newLabel : '', '']);
    }
  }
  return Array.from(rows.values());
}

function count() {
  const rows = decided();
  const number = action => rows.filter(row => row[2] === action).length;
  bar.querySelector('span').textContent =
    `${number('move')} to move, ${number('drop')} to drop, ` +
    `${number('keep')} to keep`;
  button.disabled = !rows.length;
}

function changed(event) {
  const figure = event.target.closest('figure');
  if (event.target.tagName === 'SELECT') {
    figure.querySelector('input[value="move"]').checked = true;
  }
  const choice = choiceOf(figure);
  if (choice.action === 'move' && choice.newLabel === figure.dataset.label) {
    choice.action = 'keep';
  }
  for (const other of figures) {
    if (other.dataset.file === figure.dataset.file) show(other, choice);
  }
  saved = false;
  count();
}

function save() {
  const quoted = value => `"${value.replace(/"/g, '""')}"`;
  const lines = [columns.join(',')].concat(
    decided().map(row => row.map(quoted).join(',')));
  const link = document.createElement('a');
  link.href = URL.createObjectURL(new Blob(
    [lines.join('\n') + '\n'], {type: 'text/csv'}));
  link.download = 'choices.csv';
  link.click();
  URL.revokeObjectURL(link.href);
  saved = true;
}

for (const figure of figures) {
  figure.querySelector('fieldset').hidden = false;
  figure.querySelector('select').addEventListener(
    'focus', event => fill(event.target), {once: true});
  figure.addEventListener('change', changed);
}
button.addEventListener('click', save);
window.addEventListener('beforeunload', event => {
  if (!saved) event.preventDefault();
});
bar.hidden = false;
count();
