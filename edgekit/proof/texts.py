"""Texts of edgekit's own, to try a file on where the data of its checkpoint can't be read again."""

SAMPLE_TEXTS = (
    "Save",
    "Open the settings and choose a language.",
    "%(count)d files were copied to %(folder)s",
    "Die Datei konnte nicht gespeichert werden.",
    "Voulez-vous vraiment quitter sans enregistrer ?",
    "¿Desea eliminar estos tres elementos?",
    "Não foi possível ligar ao servidor",
    "Impostazioni della stampante",
    "Проверьте подключение к сети",
    "Ρυθμίσεις ήχου και εικόνας",
    "تم حفظ التغييرات",
    "הקובץ לא נמצא",
    "保存并继续",
    "ファイルを選択してください",
    "새 폴더 만들기",
    "Tiedostoa ei löytynyt 🙂",
)
