<?php
header('Content-Type: application/json');
$file = $_FILES['file'] ?? ['error' => 'no file'];
if (isset($file['tmp_name']) && is_uploaded_file($file['tmp_name'])) {
    $file['sha256'] = hash_file('sha256', $file['tmp_name']);
}
echo json_encode(['file' => $file, 'post' => $_POST]);
